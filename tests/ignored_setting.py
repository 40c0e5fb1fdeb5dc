"""A pytest plugin that makes the package ignore a setting: IGNORED_SETTING=Class.field, -p ignored_setting.

The setting is read and checked as ever, wherever it comes from; then it is what it is if nobody gives it.
"""

import os
from typing import Any, Final

from pydantic import BaseModel

from kronos_service.inference.settings import Settings as ServiceSettings
from kronos_shared.cli import Settings as CommandSettings

ONLY_CHECKED: Final = ("EvaluateConfig.open_test_split",)
"""What nothing but the checks of its own class reads is ignored before them."""


def ignore(setting: str) -> None:
    """Make every object of the class that `setting` names, or of one derived from it, forget that field."""
    for base in (CommandSettings, ServiceSettings):
        _wrap(base, *setting.split("."))


def _wrap(base: type[BaseModel], owner: str, field: str) -> None:
    plain = base.__init__

    def forgetful(self: BaseModel, /, **values: Any) -> None:
        names = {one.__name__ for one in type(self).__mro__}
        is_meant = owner in names and field in type(self).model_fields
        if is_meant and f"{owner}.{field}" in ONLY_CHECKED:
            values.pop(field, None)
        plain(self, **values)
        if is_meant:  # a frozen object can be changed only so
            self.__dict__[field] = type(self).model_fields[field].get_default(call_default_factory=True)
            self.model_fields_set.discard(field)

    base.__init__ = forgetful  # type: ignore[method-assign]


def pytest_configure() -> None:
    """Ignore what the environment names."""
    if setting := os.environ.get("IGNORED_SETTING"):
        ignore(setting)
