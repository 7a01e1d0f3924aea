"""The operator: what was seen of a run → ``plan.decide`` → what is done about it.

One process, one loop of facts. Watches, polls and timers only say *which* run to look at; a pass
over a run reads everything anew, asks the pure ``decide``, carries the decision out and writes one
status. A lost event, a crash between two writes and a second replica are all the same case: the
next pass sees what is there.

- ``queue``      which runs to look at: deduplicated, in order, retried, fair between namespaces
- ``watch``      kopf in a thread of its own, as a source of keys and nothing more
- ``poll``       what no watch tells: heartbeats in storage, and a full resync
- ``observe``    one run's world, read from the API server and from storage
- ``reconcile``  one pass: parse, observe, decide, act, report
- ``events``     events for people, once each
- ``lease``      which replica acts
- ``publish``    what every user of a served namespace may know
- ``health``     probes that tell the truth, and metrics
- ``journal``    JSON log lines without secrets
- ``settings``   the platform's file and the operator's own surroundings
"""
