"""The promises that every method keeps on every engine, as checks. Separate because the tests and the command line
(`python -m bench methods check`) run this one code: what holds a method of the house holds one that lies elsewhere.

tiny and values need no torch (probe.py runs them in a process of its own); place runs stages in a store of its own.
"""
