"""What Prometheus is told at /metrics, over all processes of the release."""

from fastapi import FastAPI
from prometheus_client import Gauge
from prometheus_fastapi_instrumentator import Instrumentator, metrics

# Upper bounds in seconds. Each of them costs a little at each request.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# Not what people ask for.
UNCOUNTED = ["/metrics", "/healthz"]

RELEASE = Gauge("app_release_info", "The release that runs.", ["release", "revision"], multiprocess_mode="livemax")


def add_metrics(app: FastAPI, release: str, revision: str | None) -> None:
    """Count the requests of `app`, by the template of their route, and how long they take.

    Where PROMETHEUS_MULTIPROC_DIR names a directory, as it does in a release, all processes count together.
    """
    RELEASE.labels(release, revision or "").set(1)
    instrumentator = Instrumentator(
        should_group_status_codes=False,
        should_instrument_requests_inprogress=True,
        inprogress_labels=True,
        excluded_handlers=UNCOUNTED,
    )
    instrumentator.add(metrics.requests(), metrics.latency(buckets=BUCKETS, should_include_status=False))
    instrumentator.instrument(app).expose(app, include_in_schema=False)
