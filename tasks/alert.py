"""The step of the flow `alert`: one e-mail through prefect-email."""

from __future__ import annotations

import html
import smtplib

from prefect.logging import get_run_logger
from prefect_email import email_send_message

from blocks.alert_mail import DOCUMENT, AlertMail
from mozart.errors import ConfigurationError, TransientError
from tasks.step import step


@step("e-mail {subject}")
async def send_alert(subject: str, body: str) -> str:
    """Send the e-mail; the recipients. A server that does not take it is tried again."""
    try:
        mail = await AlertMail.aload(DOCUMENT)
    except (ValueError, RuntimeError):
        # Neither chained nor quoted: a failed validation prints the block's values.
        raise ConfigurationError(f"the block {DOCUMENT} is missing or of an older shape; run `mozart deploy`") from None
    try:
        await email_send_message.fn(
            subject=subject,
            msg=f"<pre>{html.escape(body)}</pre>",
            msg_plain=body,
            email_server_credentials=mail.server,
            email_from=mail.sender,
            email_to=mail.recipients,
        )
    except (OSError, smtplib.SMTPException) as error:
        raise TransientError(
            f"the mail server {mail.server.smtp_server} did not take the alert ({type(error).__name__}: {error});"
            " see MOZART_ALERT_SMTP_* in .env"
        ) from None
    get_run_logger().info("sent to %s", mail.recipients)
    return mail.recipients
