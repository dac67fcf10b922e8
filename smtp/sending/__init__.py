"""The sender: one campaign's messages from its outbound topic to mail servers, and what became of them back.

Read in this order: ``ports`` (what a sender needs of the world), ``gate`` (may it send now?), ``backlog`` (which
message is next?), ``compose`` and ``outcomes`` (a message out, an answer in), ``memory`` and ``recorder`` (what is
written down, and when), ``sender`` (how it all runs).
"""
