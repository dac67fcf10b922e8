"""The whole system on one machine: two campaigns, one of them bad, and an account that must close."""
