"""Feedback that other services post to us: what they sign, what their events say, what it means for a campaign."""
