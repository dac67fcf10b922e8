"""The settings of the plain Faust apps; all are Faust's own, chosen so that the apps are fast, and none of ours."""

import os
from typing import Any

PARTITIONS = 4

OPTIONS: dict[str, Any] = {  # Any: Faust's settings are of many types
    "broker": "kafka://" + os.environ.get("PLAIN_KAFKA", "127.0.0.1:9092"),
    "store": "memory://",
    "value_serializer": "json",
    "topic_partitions": PARTITIONS,
    "topic_replication_factor": 1,
    "topic_disable_leader": True,
    "table_standby_replicas": 0,
    # Seconds.  Both commit as often as ours, so that both are seen to be done equally soon.
    "broker_commit_interval": 1.0,
    # Seconds.  One event per record lives on batches: at 0 each send is nearly a request of its own.
    "producer_linger": 0.05,
    "producer_request_timeout": 60.0,
    "web_enabled": False,
}
