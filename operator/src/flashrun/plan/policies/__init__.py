"""One policy in each module: a rule about a run, as a function from what is known to a decision.

A policy returns None when its rule does not apply; ``plan.decide`` has their order.
"""
