"""How a stored record is read: whole and right, or refused in one sentence."""

import json
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ccdcseg.errors import UserError
from ccdcseg.files import read_text

LONGEST_VALUE = 60

Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def check_finite(content: dict[str, Any]) -> dict[str, Any]:
    """Refuse NaN and infinity in what no class describes.

    Raises:
        ValueError: there is one.
    """
    json.dumps(content, allow_nan=False)
    return content


class Stored(BaseModel):
    """What is stored as JSON, or a part of it; the class that writes it reads it.

    Types are strict (no text for a number) and numbers are finite. A field that may be absent has a default, which
    means "not recorded": older files stay readable when a field is added. A field that this version does not know
    is kept and not looked at: a file of a later version stays readable too, unless its ``format`` says otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, populate_by_name=True)

    @property
    def content(self) -> dict[str, Any]:
        """The fields that were set, ready for JSON."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @classmethod
    def parse(cls, text: str | bytes, place: object, remedy: str) -> Self:
        """Read JSON.

        Args:
            text: the JSON.
            place: where it is from, for the message.
            remedy: how to make it anew.

        Raises:
            UserError: it is no JSON, or a field is missing or wrong.
        """
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise UserError(f"{place}: {_fault(error)}.", remedy) from error

    @classmethod
    def read(cls, path: Path, remedy: str) -> Self:
        """Read a file; see `parse`.

        Raises:
            UserError: as `parse`; it does not exist or cannot be read.
        """
        return cls.parse(read_text(path), path, remedy)


def _fault(error: ValidationError) -> str:
    """The first field that is wrong, what it holds and what would be right."""
    first = error.errors(include_url=False)[0]
    field = ".".join(map(str, first["loc"]))
    cause = str(first.get("ctx", {}).get("error", first["msg"])).replace("Input should", "it should")
    if first["type"] == "missing":
        return f"{field} is missing"
    if first["type"] in ("json_invalid", "value_error"):
        return f"{field}: {cause}" if field else cause
    held = shorten(json.dumps(first["input"], ensure_ascii=False, default=str), LONGEST_VALUE)
    return f"{field or 'the content'} is {held}: {cause}"
