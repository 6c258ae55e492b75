"""The user's tasks for `invoke` in a checkout, and the developers' own."""

from hpcproxy.cli import user_tasks

namespace = user_tasks()
