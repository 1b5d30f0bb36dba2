"""Validation of the configuration file and the environment by pydantic-settings. Slow to import: only config.load
does.
"""

from dataclasses import fields
from typing import Annotated, Any, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .settings import SECTIONS, ConfigError, Settings
from .target_settings import TargetSettings


class _Base(BaseSettings):
    """The environment goes before what is passed in, the file's content."""

    model_config = SettingsConfigDict(
        extra="forbid", env_prefix="TAPDECK_", env_nested_delimiter="_", env_nested_max_split=1, enable_decoding=False
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def validate(content: dict[str, Any], variables: dict[str, str], file: str) -> Settings:
    """Return the settings of a file's content with the variables laid over it. Raises ConfigError.

    pydantic-settings reads the variables itself, from the process's environment; `variables` tells what to name in a
    message.
    """
    try:
        model = _model()(**content)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        variable = f"TAPDECK_{'_'.join(str(part) for part in first['loc'][:2])}".upper()
        place = variable if variable in variables else f"{file}: {name}"
        raise ConfigError(f"{place}: {first['msg']} (it is {first['input']!r})") from None
    sections = {name: kind(**getattr(model, name).model_dump()) for name, kind in SECTIONS.items()}
    return Settings(**sections)


def validate_target(table: dict[str, Any], place: str) -> TargetSettings:
    """Return the target of a table whose keys are known. Raises ConfigError, without the value of what may be a
    secret's.
    """
    try:
        values = _made("target", TargetSettings)(**table).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        shown = "" if "pass" in key else f" (it is {first['input']!r})"
        raise ConfigError(f"{place}: {key}: {first['msg']}{shown}") from None
    return TargetSettings(**values)


def _made(name: str, kind: type) -> type[BaseModel]:
    hints = get_type_hints(kind)
    members: dict[str, Any] = {one.name: (_type(hints[one.name]), one.default) for one in fields(kind)}
    return create_model(name, __base__=_Section, **members)


def _model() -> type[_Base]:
    """Make the model from the dataclasses, so that there is one list of settings."""
    sections: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        section = _made(name, kind)
        sections[name] = (section, Field(default_factory=section))
    return create_model("Configuration", __base__=_Base, **sections)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _type(hint: Any) -> Any:
    """A list may also be written as one text with commas, as variables have to."""
    return Annotated[hint, BeforeValidator(_split)] if get_origin(hint) is tuple else hint


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
