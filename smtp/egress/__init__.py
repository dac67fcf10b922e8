"""How connections leave, what name they go by, and what is done when the way out fails."""
