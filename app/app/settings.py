"""What can be set from outside."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SECRET_KEY_MIN_LENGTH = 16


class Settings(BaseSettings):
    """Each field is the environment variable of the same name in capitals.

    The environment wins over the file `.env` in the working directory, and that over the defaults,
    which are enough for a first try. A value that cannot be used raises `pydantic.ValidationError`,
    which names the field and never shows the value.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        extra="ignore",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    app_title: str = "Slipway example"
    """The name at the top of the API documentation."""

    environment: Literal["development", "staging", "production"] = "development"
    """Where the app runs. Production asks for a real SECRET_KEY."""

    docs_enabled: bool = True
    """Whether /docs, /redoc and /openapi.json are served."""

    metrics_enabled: bool = True
    """Whether requests are counted, for Prometheus at /metrics."""

    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], BeforeValidator(str.lower)] = "info"
    """The least severe messages that are logged."""

    secret_key: SecretStr = SecretStr("changeme")
    """The key that /signed signs with."""

    release_id: str = "dev"
    """The release that runs, as /version reports it."""

    release_revision: str | None = None
    """The source revision that the release was built from."""

    @field_validator("secret_key")
    @classmethod
    def _refuse_weak_key(cls, key: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("environment") == "production" and len(key) < SECRET_KEY_MIN_LENGTH:
            raise ValueError(
                f"with ENVIRONMENT=production, SECRET_KEY must have at least {SECRET_KEY_MIN_LENGTH} characters"
            )
        return key
