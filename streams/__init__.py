"""Where it flows: topics, the copy of what is known, tables and the safe Faust runtime, web pages.

Everything here speaks to Kafka and decides nothing.
"""
