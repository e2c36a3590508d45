"""Where jobs run: this machine, this process, Slurm. The loop that drives them all is bench/launch.py."""
