"""Everything that speaks SMTP: messages, the delivery client, the sender, the return path, simulated providers."""
