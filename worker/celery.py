"""The worker app: `celery -A worker worker`."""

from worker.broker import make_app
from worker.settings import Settings
from worker.startup import or_exit

app = or_exit(lambda: make_app("compactor", Settings.load()))
app.conf.imports = ("worker.tasks",)
