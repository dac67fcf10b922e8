"""The Faust app with the safe parts put in, and the settings that measured well."""

from typing import Any

import faust
from faust.exceptions import ImproperlyConfigured
from faust.transport.drivers import aiokafka as driver
from faust.types import TopicT
from faust.types.transports import TransportT
from mode import CrashingSupervisor
from mode.utils.objects import cached_property

from streams.home import partition_of
from streams.runtime.consumer import SafeConsumer, SafeFlow
from streams.runtime.producer import SafeProducer
from streams.runtime.stream import SafeStream
from streams.runtime.table import SafeTable

LARGEST_RECORD = 8 * 1024 * 1024

# Any: Faust's settings are of many types.  Each can be overridden by an option of the same name.
DEFAULTS: dict[str, Any] = {
    # An agent that raises ends the process: its event is not done, and comes again after the restart.
    "agent_supervisor": CrashingSupervisor,
    # Frames travel as bytes; agents decode inside, where a bad one can become a dead letter.
    "key_serializer": "raw",
    "value_serializer": "raw",
    # Seconds.  Lingering is nearly all of the latency; 0 would cost a request per table write.
    "producer_linger": 0.005,
    # Seconds.  How long a send to a topic that does not exist blocks its agent, and how long a commit waits for a
    # broker that is away before the process ends.  Faust's own 1200 s is a stopped partition.
    "producer_request_timeout": 60.0,
    "producer_max_request_size": LARGEST_RECORD,
    "producer_partitioner": partition_of,
    # Seconds.  Commits are cheap, and what lies between two of them is repeated after a crash.
    "broker_commit_interval": 1.0,
    # Bytes of one partition in one answer.  A busy partition costs a request, and all that belongs to one, per so many.
    "consumer_max_fetch_size": 4 * 1024 * 1024,
    # Events in the queue of an agent.  A frame may have hundreds of kilobytes; more does not make it faster.
    "stream_buffer_maxsize": 512,
    # Standbys do nothing for tables in memory, and unbalance the assignment.
    "table_standby_replicas": 0,
    "store": "memory://",
    # Pages are a role's choice, Faust's own ones show tables to anybody.
    "web_enabled": False,
    "web_stats_enabled": False,
    "web_graph_enabled": False,
    "web_router_enabled": False,
    "web_tables_enabled": False,
    "web_metrics_enabled": False,
}


class SafeTransport(driver.Transport):
    """The aiokafka transport with the safe consumer and producer."""

    Consumer = SafeConsumer
    Producer = SafeProducer


class SafeApp(faust.App):
    """A Faust app that keeps the promise of this package; everything else is as in Faust."""

    def __init__(self, id: str, **options: Any) -> None:  # noqa: A002 - Faust's name; Any: Faust's settings
        settings = {**DEFAULTS, "Stream": SafeStream, "Table": SafeTable, **options}
        if settings.get("processing_guarantee", "at_least_once") != "at_least_once":
            raise ImproperlyConfigured("exactly_once of Faust loses and doubles; offsets in table values do not")
        if settings.get("consumer_auto_offset_reset", "earliest") != "earliest":
            raise ImproperlyConfigured("consumer_auto_offset_reset must be earliest, or recovery can wait for ever")
        if settings.get("producer_threaded"):
            raise ImproperlyConfigured("producer_threaded commits before the changelog is written")
        super().__init__(id, **settings)

    def topic(self, *topics: str, **options: Any) -> TopicT:  # Any: as in Faust
        """Describe a topic; a tombstone reaches the agent as an event whose value is None."""
        return super().topic(*topics, **{"allow_empty": True, **options})

    def table(self, name: str, *, partitions: int, **options: Any) -> SafeTable:  # Any: as in Faust
        """Make a table; ``partitions`` is that of its source topics."""
        made = self.Table(name, partitions=partitions, **options)
        assert isinstance(made, SafeTable), "set in __init__"  # noqa: S101 - narrows the type
        return made

    def panes(self, name: str, *, partitions: int, size_s: float, expires_s: float, **options: Any) -> SafeTable:
        """Make a table of tumbling panes, each kept until ``expires_s`` after its end; see ``SafeTable.put``."""
        table = self.table(name, partitions=partitions, lazy=True, **options)
        table.tumbling(size_s, expires=expires_s)
        return table

    @property
    def is_ready(self) -> bool:
        """Whether tables are recovered and streams run: the readiness of this worker."""
        tables: Any = self.tables  # Any: the interface leaves out recovery
        return bool(tables.recovery.completed.is_set()) and not self.rebalancing

    def oldest_open_s(self, now: float) -> float:
        """Seconds that the oldest event handed to an agent has been open; ``now`` is monotonic."""
        consumer = self.consumer
        assert isinstance(consumer, SafeConsumer), "set by the transport"  # noqa: S101 - narrows the type
        return consumer.oldest_open_s(now)

    def _new_transport(self) -> TransportT:
        return SafeTransport(self.conf.broker_consumer, self)

    @cached_property
    def flow_control(self) -> SafeFlow:
        """The valve in front of all streams."""
        return SafeFlow(loop=self.loop)

    def _create_directories(self) -> None:
        """Make no data folder: tables are in memory, and a container's file system may be read-only."""
