"""The promises that every method keeps on every engine, and those of the engines, as checks. Separate because the tests
and the command line (`python -m bench methods check`, `engines check`) run this one code: what lies outside the
repository is checked like the house's own.

tiny and values need no torch (probe.py runs them in a process of its own); place runs stages in a store of its own.
"""
