"""Putting the sandbox together."""

from __future__ import annotations

from fastapi import FastAPI

from sandbox import errors
from sandbox.activity import Activity
from sandbox.compaction import Compactor
from sandbox.faults import Faults
from sandbox.gate import Gate
from sandbox.options import Options
from sandbox.routes import activity as activity_routes
from sandbox.routes import agents as agent_routes
from sandbox.routes import control
from sandbox.routes import conversations as conversation_routes
from sandbox.schema import connect
from sandbox.seeding import seed
from sandbox.sending import Sender
from sandbox.store import Store
from sandbox.webhook import Webhook


def create_app(options: Options) -> Gate:
    """Open the file, seed it if it is empty, and return the ASGI application.

    Raises sqlite3.Error when the file cannot be opened. Must run on the thread that will run the event loop.
    """
    connection = connect(options.database)
    store, activity = Store(connection), Activity(connection)
    if options.seed and store.is_empty():
        seed(store, options.seed, options.seed_value)
    faults = Faults(options.faults, options.fault_seed)
    webhook = Webhook(options.webhook_url, options.webhook_key)
    compactor = Compactor(store, activity, options.compact_latency, options.fault_seed)
    sender = Sender(
        store,
        activity,
        webhook,
        latency=options.reply_latency,
        reply_chars=options.reply_chars,
        seed=options.fault_seed,
    )

    app = FastAPI(title="A stand-in for Letta", docs_url=None, redoc_url=None)
    gate = Gate(app, faults, options.latency, options.api_key, options.fault_seed)
    errors.install(app)
    app.include_router(activity_routes.router(activity))
    app.include_router(agent_routes.router(store))
    app.include_router(conversation_routes.router(store))
    app.include_router(conversation_routes.acting_router(store, sender, compactor, options.ping_interval))
    app.include_router(control.router(activity, faults, compactor, sender, lambda: gate))
    return gate
