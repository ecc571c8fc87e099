"""The base of all schemas, the types of their fields, and the one form of errors."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Rate = Annotated[float, Field(gt=0, lt=1)]
SqDist = Annotated[float, Field(ge=0, le=4)]
Name = Annotated[str, Field(max_length=512)]
Fingerprint = Annotated[str, Field(max_length=64)]
WholeNumber = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]  # what SQLite holds
Value = str | bool | WholeNumber | float | None
FieldName = Annotated[str, Field(pattern=r'^[^"\x00-\x1f]{1,100}$')]
Where = Annotated[dict[FieldName, Value | Annotated[list[Value], Field(max_length=1000)]], Field(max_length=100)]
MOST = 10_000  # values of a list
Names = Annotated[list[Name], Field(max_length=MOST, fail_fast=True)]
Far = Annotated[float, Field(gt=0, le=1)]


class Asked(BaseModel):
    """JSON of a request: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Told(BaseModel):
    """JSON of an answer."""


class Note(Told):
    """Something that a person should know of a photo or a face."""

    code: Annotated[str, Field(examples=["too_blurred"])]
    message: str


class ErrorBody(Told):
    """What went wrong: `code` for programs, `message` for people, `details` on parts of the request."""

    code: Annotated[str, Field(examples=["no_face"])]
    message: Annotated[str, Field(examples=["picture: no face found; give a photo that shows the face larger"])]
    request_id: Annotated[str, Field(examples=["5f0c6d1e9a7b4c32"])]
    details: list[dict[str, Any]]


class ErrorAnswer(Told):
    """Every error of every status has this form."""

    error: ErrorBody
