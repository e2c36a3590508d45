"""Two sources of results side by side (`bench report A B --compare`)."""
