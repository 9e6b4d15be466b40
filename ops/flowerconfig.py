"""What Flower is told on its start: `compactor flower` names this file. Flower runs it and reads its names.

Flower's own options on the command line win over it, but not the one that would let everybody in: see the end.

`/metrics` and `/healthcheck` answer without a login, whatever is set: Flower has it so. They name tasks and workers
and count them, and know nothing of conversations; whoever minds keeps the port to himself and puts a proxy before it.
"""

from tornado.options import options

from ops.flower import require_login, told
from worker.logs.setup import configure
from worker.settings import Settings
from worker.startup import or_exit

_settings = or_exit(Settings.load)
or_exit(_settings.make_state_dir)
configure(_settings)

address = _settings.flower_host
port = _settings.flower_port
url_prefix = _settings.flower_url_prefix or None
basic_auth = [] if _settings.flower_auth is None else [_settings.flower_auth.get_secret_value()]

# Who watches does not act: what is to be done is done by `compactor`, which writes it down.
read_only = True

# A task takes about 6 kB, so that these take 64 MB at the most. They outlive a restart, and a kill but for a minute.
max_tasks = 10_000
persistent = True
db = str(_settings.state_dir / "flower")
state_save_interval = 60_000

# A worker that died is shown for a day: long enough to be noticed. Publishers are not, and each has its own name.
purge_offline_workers = 86_400

tasks_columns = "name,args,state,result,received,runtime,uuid,worker"
format_task = told

or_exit(lambda: require_login(_settings.with_values({"COMPACTOR_FLOWER_HOST": options.address or address})))
