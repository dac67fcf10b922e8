"""What is decided: pure functions and tables, and the data files that operators tune beside them.

Nothing here reads a clock, the environment or the network; time and chance are arguments.
"""
