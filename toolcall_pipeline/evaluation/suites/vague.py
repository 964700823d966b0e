"""Suite V: vague prompts, the kinds that tripped v1 into empty arguments and loops.

Each prompt is a kind of doing and a thing to do it to, and no such pair is asked twice: in other words it would be the
same case. There is no right tool: the question is whether a call is made with its arguments filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolcall_pipeline.dataset.templates import system_prompt
from toolcall_pipeline.evaluation.cases import Case
from toolcall_pipeline.evaluation.suites.catalogue import CODING_TOOLS, EXTRA_TOOLS, choose, pick_tools, shuffled

_KINDS: dict[str, tuple[str, ...]] = {
    "look": (
        "take a look at {thing}", "what's up with {thing}?", "check {thing}", "show me {thing}", "is {thing} okay?",
        "anything odd in {thing}?", "go through {thing} for me", "dig into {thing}", "what do we have for {thing}?",
    ),
    "change": (
        "clean up {thing}", "fix {thing}", "make {thing} better", "{thing} needs work", "tidy {thing} a bit",
        "sort out {thing}", "update {thing}", "simplify {thing}", "modernise {thing}", "finish {thing}",
    ),
    "find": (
        "where's {thing}?", "find {thing}", "which files belong to {thing}?", "who touches {thing}?",
        "what depends on {thing}?", "dig out {thing}",
    ),
    "understand": (
        "how does {thing} work here?", "explain {thing} in this project", "why is {thing} like that?",
        "what changed in {thing}?", "summarise {thing}", "give me an overview of {thing}", "what's left to do on {thing}?",
    ),
    "run": (
        "run {thing}", "does {thing} still pass?", "try {thing}", "get {thing} going", "see if {thing} works",
        "kick off {thing}", "how fast is {thing}?",
    ),
}  # fmt: skip
_THINGS = (
    "the logs", "the config", "the build", "the readme", "the api", "the database layer", "the deploy script",
    "auth", "the tests", "the parser", "the cache", "error handling", "the cli", "the docs", "that module",
    "the last commit", "the dependencies", "the schema", "logging", "the worker", "the scheduler", "the frontend",
    "the types", "the setup", "the migration", "the examples", "ci", "the settings", "the helper functions",
    "the data folder", "the benchmark", "the release notes", "the upload code", "the search", "the retry logic",
    "the session handling", "the login page", "the payment flow", "the queue", "the webhook", "the email templates",
    "the admin panel", "the rate limiter", "the feature flags", "the import script", "the export",
    "the report generator", "the date handling", "time zones", "the translations", "the layout", "the navigation",
    "the forms", "the validation", "the error messages", "the unit tests", "the integration tests", "the fixtures",
    "the mocks", "the coverage", "the linter setup", "the formatter", "the makefile", "the dockerfile",
    "the compose file", "the pipeline", "the nightly job", "the cron entries", "the backup script",
    "the restore step", "the seed data", "the indexes", "the slow query", "the orm models", "the serializers",
    "the routes", "the middleware", "the permissions", "the roles", "the tokens", "the secrets handling",
    "the environment variables", "the startup code", "the shutdown", "the health check", "the metrics",
    "the dashboards", "the alerts", "the tracing", "the websocket part", "the polling loop", "the batch job",
    "the thread pool", "the locks", "the memory use", "the file watcher", "the path handling", "the encoding",
    "the csv import", "the pdf output", "the image resizing", "the thumbnails", "the download page",
    "the changelog", "the license header", "the version number", "the package metadata", "the entry point",
    "the plugin system", "the event bus", "the state machine", "the router", "the store", "the hooks", "the styles",
    "the theme", "the icons", "the landing page", "the onboarding", "the sandbox",
)  # fmt: skip
_FOLDER = "/home/user/projects/app"


def vague_cases(tools: Sequence[dict[str, Any]], count: int) -> list[Case]:
    """Return `count` vague prompts, kinds taking turns."""
    offered = pick_tools((*CODING_TOOLS, *EXTRA_TOOLS[:2]), tools)
    queues = {kind: shuffled(_THINGS, f"V/{kind}") for kind in _KINDS}
    prompts = [
        (kind, choose(phrases, f"V/{kind}/{thing}").format(thing=thing))
        for things in zip(*queues.values(), strict=True)
        for (kind, phrases), thing in zip(_KINDS.items(), things, strict=True)
    ]
    return [_case(number, kind, prompt, offered) for number, (kind, prompt) in enumerate(prompts[:count])]


def _case(number: int, kind: str, prompt: str, tools: Sequence[dict[str, Any]]) -> Case:
    return Case(
        suite="V",
        case_id=f"V-{kind}-{number:03d}",
        cluster_id=f"V-{number:03d}",
        stratum=kind,
        messages=(
            {"role": "system", "content": system_prompt(_FOLDER)},
            {"role": "user", "content": prompt},
        ),
        tools=tuple(shuffled(list(tools), f"V/{number}/tools")),
        expected={
            "any_call_with_arguments": True,
            "example": {"name": "Bash", "arguments": {"command": "git status && ls"}},
        },
    )
