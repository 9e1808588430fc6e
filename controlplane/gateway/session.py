"""Signing in to the console: the token that says who somebody is, kept by the browser where no script can read it."""

from typing import Annotated, cast

from fastapi import APIRouter, Request, Response
from pydantic import Field

from controlplane.api.models import Model
from controlplane.api.problems import refused
from controlplane.gateway.callers import ANYBODY, Caller, Role
from controlplane.gateway.identity import COOKIE, TOKEN_LIMIT_CHARACTERS, Identities

router = APIRouter(prefix="/v1/session", tags=["session"])


class SignIn(Model):
    """What to sign in with."""

    token: Annotated[str, Field(min_length=1, max_length=TOKEN_LIMIT_CHARACTERS, description="A bearer token.")]


class SessionView(Model):
    """Who is signed in."""

    name: str
    tenant: str = Field(description="* for all.")
    roles: list[Role]
    sign_in: bool = Field(description="Whether one has to sign in here at all.")


def _view(caller: Caller, *, sign_in: bool) -> SessionView:
    return SessionView(name=caller.name, tenant=caller.tenant, roles=sorted(caller.roles), sign_in=sign_in)


def _identities(request: Request) -> Identities | None:
    return cast("Identities | None", request.app.state.identities)


@router.get("")
async def session(request: Request) -> SessionView:
    """Say who is signed in; 401 for nobody."""
    identities = _identities(request)
    if identities is None:
        return _view(ANYBODY, sign_in=False)
    token = request.cookies.get(COOKIE)
    if token is None:
        raise refused("unauthorized", "Expected somebody who signed in, but nobody did.", field="cookie")
    return _view(identities.of_token(token), sign_in=True)


@router.post("")
async def sign_in(request: Request, response: Response, body: SignIn) -> SessionView:
    """Sign in with a token; the session ends with it, or with the browser."""
    identities = _identities(request)
    if identities is None:
        return _view(ANYBODY, sign_in=False)
    caller = identities.of_token(body.token)
    secure = request.url.scheme == "https"
    response.set_cookie(COOKIE, body.token, httponly=True, samesite="strict", secure=secure, path="/")
    return _view(caller, sign_in=True)


@router.delete("", status_code=204)
async def sign_out(response: Response) -> None:
    """Forget the token."""
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
