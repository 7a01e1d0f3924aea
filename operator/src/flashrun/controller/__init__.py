"""The operator: observe a run, decide with ``plan.decide``, act, report.

One process. Watches, polls and timers name the run to look at. A pass over a run takes its state
from what the watches have shown, or reads it anew, calls the pure function ``decide``, carries out
its decision and writes one status. A lost event, a crash between two writes and a second replica
all end the same way: the next pass sees the present state.

- ``queue``      runs that are due: deduplicated, in order, retried, fair between namespaces
- ``watch``      kopf in a thread of its own, as a source of run names and of their objects
- ``watch_session``  takes what kopf lists and watches, within bounds
- ``watched_objects``  what is kept of one object
- ``object_cache``  FlashRuns, Jobs and pods as the watches have shown them
- ``own_objects``  which objects of a run exist, for a short time
- ``status_writer``  writes a status over the one that was read
- ``poll``       heartbeats in storage, and a periodic full resync
- ``observe``    the state of one run, read from the API server and from storage
- ``mirror_reader``  models of the mirror that runs can use without an entry in the catalog
- ``silence``    how long each pod has shown no sign of life, by the operator's own clock
- ``reconcile``  one pass: parse, observe, decide, act, report
- ``events``     Kubernetes Events for users, one per run and reason
- ``lease``      which replica acts
- ``storage_threads``  the threads that call S3, apart from those of the Kubernetes client
- ``publish``    data that every user of a served namespace may read
- ``health``     probes and the metrics endpoint
- ``metrics``    the counters behind that endpoint
- ``json_logs``  JSON log lines without secrets
- ``settings``   the platform file, and facts about this process
"""
