"""Facts of the user's projects, read from the store, with an answer key and the answers of other projects as distractors."""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from toolcall_pipeline.evaluation.suites.recall import RecallFact
from toolcall_pipeline.store.episodes import Episode

_RUNNERS = (
    "pytest", "vitest", "jest", "cargo", "npm", "pnpm", "yarn", "bun", "make", "gradle", "mvn", "dotnet", "uv", "poetry",
    "tox", "go", "docker", "terraform", "bundle", "composer", "mix", "deno",
)  # fmt: skip
_LANGUAGES = {
    "py": "Python", "ts": "TypeScript", "tsx": "TypeScript", "js": "JavaScript", "jsx": "JavaScript", "go": "Go",
    "rs": "Rust", "java": "Java", "rb": "Ruby", "php": "PHP", "cs": "C#", "cpp": "C++", "kt": "Kotlin", "swift": "Swift",
}  # fmt: skip
# A habit seen once or twice is no fact.
_MIN_SEEN = 3
_FILES_PER_PROJECT = 6


class _Project:
    """What the episodes of one project show."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.remote: str | None = None
        self.runners: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.folders: dict[str, Counter[str]] = defaultdict(Counter)


def facts_of_episodes(episodes: Iterable[Episode]) -> list[RecallFact]:
    """Return questions about the projects that episodes show often enough, in a stable order.

    Args:
        episodes: Redacted, of the user's own sessions (`store.reading.iter_episodes`).
    """
    projects: dict[str, _Project] = {}
    for episode in episodes:
        if episode.project_kind != "ephemeral" and not episode.is_synthetic:
            _learn(
                projects.setdefault(episode.project_root, _Project(posixpath.basename(episode.project_root))), episode
            )
    known = [projects[root] for root in sorted(projects) if not projects[root].name.isdigit() and projects[root].name]
    return _answerable(fact for project in known for fact in _facts(project, known))


def _answerable(facts: Iterable[RecallFact]) -> list[RecallFact]:
    """Return each question once, and none that two projects of one name answer differently."""
    by_question: dict[str, list[RecallFact]] = {}
    for fact in facts:
        by_question.setdefault(fact.question, []).append(fact)
    return [same[0] for same in by_question.values() if len({fact.answers for fact in same}) == 1]


def _learn(project: _Project, episode: Episode) -> None:
    project.remote = project.remote or episode.git_remote
    for step in episode.steps:
        for call in step.calls:
            arguments = call.tool_input if isinstance(call.tool_input, dict) else {}
            path, command = arguments.get("file_path"), arguments.get("command")
            if isinstance(path, str) and path.startswith(episode.project_root + "/"):
                inner = path[len(episode.project_root) + 1 :]
                folder, name = posixpath.split(inner)
                if folder:
                    project.folders[name][folder] += 1
                project.languages[_LANGUAGES.get(name.rsplit(".", 1)[-1], "")] += 1
            if isinstance(command, str):
                words = re.findall(r"(?:^|&&|;|\|\|)\s*([\w.-]+)", command)
                project.runners.update(word for word in words if word in _RUNNERS)


def _facts(project: _Project, known: list[_Project]) -> list[RecallFact]:
    facts: list[RecallFact] = []

    def add(kind: str, question: str, answer: str, others: Iterable[str], partial: tuple[str, ...] = ()) -> None:
        shown = re.search(rf"(?<![\w-]){re.escape(answer)}(?![\w-])", question, re.IGNORECASE)
        if answer and not shown:
            wrong = tuple(sorted({other for other in others if other and other != answer}))
            facts.append(RecallFact(project.name, kind, question, (answer,), partial, wrong))

    if owner := _owner_of(project):
        question = f"Under which account or organisation is the repository of {project.name} hosted?"
        add("owner", question, owner, map(_owner_of, known))
    runner = _usual(project.runners)
    add("command", f"Which command-line program is run most for {project.name}?", runner, map(_runner_of, known))
    language = _usual(project.languages)
    add("language", f"Which programming language is {project.name} mostly written in?", language, _LANGUAGES.values())
    often = sorted(project.folders.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    all_folders = {folder for folders in project.folders.values() for folder in folders}
    for name, folders in often[:_FILES_PER_PROJECT]:
        folder = _usual(folders)
        # Who says `src/app` says `src` with it.
        others = {other for other in all_folders if not f"/{folder}/".count(f"/{other}/")}
        add(
            "folder",
            f"In {project.name}, in which folder is the file {name}?",
            folder,
            others,
            tuple({posixpath.basename(folder)} - {folder}),
        )
    return facts


def _owner_of(project: _Project) -> str:
    match = re.search(r"[:/]([^/:]+)/[^/]+?(?:\.git)?/?$", project.remote or "")
    return match[1] if match else ""


def _runner_of(project: _Project) -> str:
    return _usual(project.runners)


def _usual(counts: Counter[str]) -> str:
    """Return the clear favourite, or an empty text: seen three times, and in more than half of all cases."""
    if not counts:
        return ""
    answer, count = counts.most_common(1)[0]
    return answer if count >= _MIN_SEEN and 2 * count > sum(counts.values()) else ""
