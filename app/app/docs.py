"""The API documentation, without a CDN."""

from fastapi import FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

# Both pages need inline styles, Swagger UI an inline script, ReDoc a worker for its search. Everything else must
# come from us: ReDoc, for one, would fetch a logo from its makers' server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)


def add_docs(app: FastAPI) -> None:
    """Serve Swagger UI at /docs and ReDoc at /redoc, with scripts and styles from /docs/assets.

    All addresses in the pages are relative, so that they also hold behind a path prefix.
    """
    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_offline", "static")]), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    async def swagger_ui() -> HTMLResponse:
        return _protected(
            get_swagger_ui_html(
                title=app.title,
                openapi_url="openapi.json",
                swagger_js_url="docs/assets/swagger-ui-bundle.js",
                swagger_css_url="docs/assets/swagger-ui.css",
                swagger_favicon_url="static/logo.svg",
            )
        )

    @app.get("/redoc", include_in_schema=False)
    async def redoc() -> HTMLResponse:
        return _protected(
            get_redoc_html(
                title=app.title,
                openapi_url="openapi.json",
                redoc_js_url="docs/assets/redoc.standalone.js",
                redoc_favicon_url="static/logo.svg",
                with_google_fonts=False,
            )
        )


def _protected(page: HTMLResponse) -> HTMLResponse:
    page.headers["Content-Security-Policy"] = POLICY
    return page
