"""The app of FastAPI's first steps, and a path for health checks: what the figures of bench/run requests are ratios to."""
# mypy: allow-untyped-defs

from fastapi import FastAPI

app = FastAPI()


# Without types, as in the guide: FastAPI answers another way if it knows what is returned.
@app.get("/")
async def root():
    """Greet."""
    return {"message": "Hello World"}


@app.get("/healthz")
async def healthz():
    """Say that requests are answered."""
    return {"status": "ok"}
