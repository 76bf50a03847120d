"""The kind URIs of the standard and our own, each in one place.

A kind URI of the standard ends with the file of its schema (IVOA Execution Broker 1.0).
"""

from __future__ import annotations

BASE = "https://www.purl.org/ivoa.net/Calycopis-openapi/schema/v1.0/kinds/"

DOCKER_CONTAINER = BASE + "executable/docker-container.yaml"
SINGULARITY_CONTAINER = BASE + "executable/singularity-container.yaml"
JUPYTER_NOTEBOOK = BASE + "executable/jupyter-notebook.yaml"

SIMPLE_COMPUTE = BASE + "compute/simple-compute-resource.yaml"
SIMPLE_STORAGE = BASE + "storage/simple-storage-resource.yaml"
SIMPLE_VOLUME = BASE + "volume/simple-volume-mount.yaml"

SIMPLE_DATA = BASE + "data/simple-data-resource.yaml"
S3_DATA = BASE + "data/S3-data-resource.yaml"
IVOA_DATA = BASE + "data/ivoa-data-resource.yaml"
RUCIO_DATA = BASE + "data/rucio-data-resource.yaml"
SKAO_DATA = BASE + "data/skao-data-resource.yaml"

ABSTRACT_COST = BASE + "costs/abstract-cost-item.yaml"
SIMPLE_COST = BASE + "costs/simple-minmax-float-cost.yaml"
ABSTRACT_METRIC = BASE + "metrics/abstract-metric-item.yaml"
SIMPLE_METRIC = BASE + "metrics/simple-minmax-float-metric.yaml"

SIMPLE_SESSION = BASE + "session/simple-execution-session.yaml"
SCHEDULED_SESSION = BASE + "session/scheduled-execution-session.yaml"
OFFERSET = BASE + "offerset/execution-offerset.yaml"

STRING_OPTION = "uri:string-value-option"
ENUM_OPTION = "uri:enum-value-option"
INTEGER_OPTION = "uri:integer-value-option"
DELTA_OPTION = "uri:integer-delta-option"
STRING_UPDATE = "uri:string-value-update"
ENUM_UPDATE = "uri:enum-value-update"
INTEGER_UPDATE = "uri:integer-value-update"
DELTA_UPDATE = "uri:integer-delta-update"

COST_TYPES = "urn:ivoa:calycopis:cost:"
METRIC_TYPES = "urn:ivoa:calycopis:metric:"
MONETARY = COST_TYPES + "monetary"
ENERGY = COST_TYPES + "energy"
CARBON = COST_TYPES + "carbon"
COMPUTE_PERFORMANCE = METRIC_TYPES + "compute-performance"
IO_THROUGHPUT = METRIC_TYPES + "io-throughput"

OWN_BASE = "https://ebhpc.org/kinds/v1/"
"""Base of the kinds that ebhpc itself adds to the standard's."""

CLUSTER_COMPUTE = OWN_BASE + "compute/cluster-compute-resource"
BATCH_SCRIPT = OWN_BASE + "executable/batch-script"
RESERVED_TIME = OWN_BASE + "executable/reserved-time"
RESERVATION_CONNECTOR = OWN_BASE + "connector/reservation"

OWN_METRIC_TYPES = OWN_BASE + "metrics/"
CORE_HOURS_USED = OWN_METRIC_TYPES + "core-hours-used"
IDLE_NODE_HOURS = OWN_METRIC_TYPES + "idle-node-hours"
QUEUE_DELAY_SUM = OWN_METRIC_TYPES + "queue-delay-sum"
QUEUE_DELAY_WORST = OWN_METRIC_TYPES + "queue-delay-worst"
CORE_HOURS_UNUSED = OWN_METRIC_TYPES + "core-hours-unused"

OWN_COST_TYPES = OWN_BASE + "costs/"
FIRM_NODE_HOURS = OWN_COST_TYPES + "firm-node-hours"


def canonical(kind: str) -> str:
    """Return the standard's spelling of a kind; an existing broker says ``computer/`` for ``compute/``."""
    wrong = BASE + "computer/"
    return BASE + "compute/" + kind[len(wrong) :] if kind.startswith(wrong) else kind
