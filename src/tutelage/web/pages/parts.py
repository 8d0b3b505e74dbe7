"""What every page handler depends on, as annotated types."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from tutelage.server.permissions import current_user, require
from tutelage.server.services import Services, services
from tutelage.store.tables import User
from tutelage.web.templating import Pages


def pages(request: Request) -> Pages:
    """The templates of the server that answers this request."""
    found: Pages = request.app.state.pages
    return found


Anybody = Annotated[User, Depends(current_user)]
Trainer = Annotated[User, Depends(require("trainer"))]
Operator = Annotated[User, Depends(require("operator"))]
Parts = Annotated[Services, Depends(services)]
Templates = Annotated[Pages, Depends(pages)]
