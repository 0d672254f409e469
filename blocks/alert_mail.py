"""How alerts leave by e-mail: a server of prefect-email, the sender and who gets them."""

from __future__ import annotations

from typing import ClassVar

from prefect_email import EmailServerCredentials
from pydantic import Field

from blocks.declared import DeclaredBlock

DOCUMENT = "olap-alert-mail"


class AlertMail(DeclaredBlock):
    """The mail server of alerts, and the addresses."""

    _block_type_name: ClassVar[str | None] = "Mozart alert mail"
    _block_type_slug: ClassVar[str | None] = "mozart-alert-mail"
    _description: ClassVar[str | None] = "Where the flow `alert` sends its e-mails, and through which server."

    server: EmailServerCredentials = Field(description="The SMTP server and its login.")
    sender: str = Field(description="The address alerts come from.")
    recipients: str = Field(description="The addresses alerts go to, separated by commas.")
