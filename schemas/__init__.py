"""What travels: the record of every topic, one codec for all, and the schemas generated from them.

Nothing here decides anything, and nothing here reads a clock, a file or the network.
"""
