"""`tutelage people …`: who has an account, and a new password for who has forgotten theirs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tutelage.cli.opening import opened_store
from tutelage.cli.output import JsonOption, emit

if TYPE_CHECKING:
    from tutelage.store.tables import User


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    people = typer.Typer(help="Who has an account.", no_args_is_help=True)
    people.command("list")(list_people)
    people.command("password")(password)
    app.add_typer(people, name="people")


def list_people(as_json: JsonOption = False) -> None:
    """Everybody but guests, newest first."""
    from tutelage.store import accounts

    with opened_store() as store, store.read() as tx:
        found = accounts.list_members(tx)
    text = (
        "\n".join(_line(user) for user in found)
        or "Nobody yet. `tutelage serve` prints a link for the first."
    )
    emit({"people": [_view(user) for user in found]}, text, as_json=as_json)


def password(
    name: Annotated[str, typer.Argument(help="Who has forgotten it.")], as_json: JsonOption = False
) -> None:
    """Give somebody a new password, shown once. It ends their sessions, and the operators' log says so."""
    from tutelage.server import passwords
    from tutelage.store import accounts

    made = passwords.make_password()
    password_hash = asyncio.run(passwords.hash_password(made))
    with opened_store() as store, store.write() as tx:
        user = accounts.replace_password(tx, name, password_hash)
    text = f"{made}\n{escape(user.name or name)} can sign in with it, and change it on the account page."
    emit({"name": user.name, "password": made}, text, as_json=as_json)


def _line(user: User) -> str:
    name = user.name or "(without a name)"
    lacks = "" if user.password_hash else "  no password"
    return escape(f"{user.created:%Y-%m-%d}  {user.role:<8}  {name}{lacks}")


def _view(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "name": user.name,
        "role": user.role,
        "created": user.created.isoformat(),
        "has_password": user.password_hash is not None,
    }
