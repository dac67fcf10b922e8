"""Who acts: one thin agent per step of a message's journey: validate, route, tally, judge, control.

An agent decodes, asks policy, publishes what policy answers.
"""
