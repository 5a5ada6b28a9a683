"""A real JupyterLab, or Notebook 7, in a real Chromium, for tests of what a reader of a notebook sees.

    lab.write("x.ipynb", ["print(1 + 1)"])
    with lab.open("x.ipynb", theme="dark") as page:
        page.run_all()
        expect(page.cell_output(0)).to_contain_text("2")

The server, its kernels and the browser see nothing of the user's and reach nothing outside this machine.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Playwright

from tests.ipython.sandbox import kernel_environment, write_kernel_spec
from tests.ipython.versions import INSTALLED, KernelVersion

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
WIDTH, HEIGHT = 1100, 900  # pixels of the window, unless a cell needs more to be seen whole
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
LOCAL_SCHEMES = ("data", "blob", "about")

# JupyterLab settings, by plugin; the theme is added when a page is opened.
SETTINGS: dict[str, dict[str, Any]] = {
    # Else cells out of sight are not in the page, and neither are a cell's outputs after the fiftieth.
    "notebook-extension/tracker": {"windowingMode": "none", "maxNumberOutputs": 10_000},
    "docmanager-extension/plugin": {"autosave": False},
}
Theme = Literal["light", "dark"]
Application = Literal["lab", "notebook"]
MODULES: dict[Application, str] = {"lab": "jupyterlab", "notebook": "notebook"}
PAGES: dict[Application, str] = {"lab": "doc/tree", "notebook": "notebooks"}
CLASSES: dict[Application, str] = {"lab": "LabApp", "notebook": "JupyterNotebookApp"}
DISABLED_EXTENSIONS = [
    "@jupyterlab/apputils-extension:announcements",  # asks for news and newer versions
    "@jupyterlab/cell-toolbar-extension",  # covers the code in pictures
]
THEMES: dict[Theme, str] = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}

RUN = """
command => {
    window.runningCommands = (window.runningCommands ?? 0) + 1;
    jupyterapp.commands.execute(command).finally(() => { window.runningCommands -= 1; });
}
"""
IS_READY = """
() => {
    const panel = window.jupyterapp?.shell.currentWidget;
    return panel?.content?.widgets?.length > 0 && panel.sessionContext.session?.kernel?.status === "idle";
}
"""
IS_IDLE = """
() => !window.runningCommands && jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === "idle"
"""


def expect_soon(read: Callable[[], Any], expected: object, timeout: float = 20) -> None:
    """Assert that `read()` becomes what is expected within `timeout` seconds; `expected` may also be a condition.

    A page is laid out, and draws what a kernel has said, in its own time. Whatever is read from it with anything but
    Playwright's own `expect` is read with this. That something is *not* there needs a sign first that the page is drawn.
    """
    end = time.monotonic() + timeout
    while True:
        found = read()
        if expected(found) if callable(expected) else found == expected:
            return
        assert time.monotonic() < end, f"still {found!r} after {timeout} s; expected {expected!r}"
        time.sleep(0.05)


def read_notebook(path: Path, timeout: float = 20) -> nbformat.NotebookNode:
    """The notebook in a file, as soon as that is whole: Jupyter's server empties a file before it writes it."""
    end = time.monotonic() + timeout
    while True:
        try:
            return nbformat.read(path, as_version=4)
        except nbformat.reader.NotJSONError:
            assert time.monotonic() < end, f"{path.name} is still no notebook after {timeout} s"
            time.sleep(0.05)


class Lab:
    """A JupyterLab or Notebook server with its folder of notebooks. Made by `running_lab`."""

    def __init__(self, folder: Path, url: str, browser: Browser, application: Application = "lab") -> None:
        self.notebooks = folder / "notebooks"
        self.url = url
        self.pages = f"{url}/{PAGES[application]}"
        self._settings = folder / "settings" / "@jupyterlab"
        self._browser = browser

    def write(self, name: str, cells: Sequence[str]) -> Path:
        """Save a notebook of code cells without outputs."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source.strip("\n")) for source in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.notebooks / name
        nbformat.write(notebook, path)
        return path

    @contextmanager
    def open(self, name: str, theme: Theme = "light") -> Iterator["NotebookPage"]:
        """A fresh browser window on a notebook, with its kernel started; both end with the context."""
        for plugin, settings in (SETTINGS | {"apputils-extension/themes": {"theme": THEMES[theme]}}).items():
            file = self._settings / f"{plugin}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings))
        context = self._browser.new_context(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme, service_workers="block"
        )
        try:
            page = NotebookPage(self, context.new_page())
            page.open(name)
            yield page
        finally:
            context.close()
            self.stop_kernels()

    @contextmanager
    def empty_page(self) -> Iterator["NotebookPage"]:
        """A window on nothing yet, with no kernel."""
        context = self._browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, service_workers="block")
        try:
            yield NotebookPage(self, context.new_page())
        finally:
            context.close()

    def stop_kernels(self) -> None:
        for session in self._api("GET", "sessions"):
            self._api("DELETE", f"sessions/{session['id']}")

    def _api(self, method: str, path: str) -> Any:
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method)
        with DIRECT.open(request, timeout=30) as response:
            body = response.read()
        return json.loads(body) if body else None


class NotebookPage:
    """One notebook in a browser window. Made by `Lab.open`."""

    def __init__(self, lab: Lab, page: Page) -> None:
        self.page = page
        """Playwright's page, for whatever is not here."""
        self.requests: list[str] = []
        """Every URL that the page asked for, web sockets among them, also those that failed."""
        self.console_errors: list[str] = []
        """What the page wrote to the console as an error, and exceptions that nobody caught."""
        self.name = ""
        self._lab = lab
        page.set_default_timeout(30_000)
        page.context.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda websocket: self.requests.append(websocket.url))
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.console_errors.append(str(error)))

    def open(self, name: str) -> None:
        """Load a notebook in this window and wait until its kernel is ready."""
        self.name = name
        self.page.goto(f"{self._lab.pages}/{name}?reset")
        self.page.wait_for_function(IS_READY, timeout=60_000)

    # Running

    def run_cell(self, index: int, wait: bool = True, timeout: float = 60) -> None:
        """Run one cell, counted from 0, to its end; with `wait=False` only start it."""
        self.page.evaluate("index => { jupyterapp.shell.currentWidget.content.activeCellIndex = index; }", index)
        self._run("notebook:run-cell", wait, timeout)

    def run_all(self, wait: bool = True, timeout: float = 60) -> None:
        self._run("notebook:run-all-cells", wait, timeout)

    def restart_and_run_all(self, wait: bool = True, timeout: float = 60) -> None:
        """Do so and confirm the question that JupyterLab asks."""
        self.page.evaluate(RUN, "notebook:restart-run-all")
        self.page.locator(".jp-Dialog .jp-mod-accept").click()
        if wait:
            self.wait_idle(timeout)

    def wait_idle(self, timeout: float = 60) -> None:
        """Wait until every cell that was started has ended and the kernel is idle; `timeout` in seconds."""
        self.page.wait_for_function(IS_IDLE, timeout=timeout * 1000)

    def interrupt(self) -> None:
        """Press the stop button."""
        self.page.evaluate("() => { jupyterapp.commands.execute('notebook:interrupt-kernel'); }")

    def answer(self, text: str) -> None:
        """Answer the `input()` that waits, as soon as it does."""
        self.page.locator(".jp-Stdin-input").fill(text)
        self.page.locator(".jp-Stdin-input").press("Enter")

    def _run(self, command: str, wait: bool, timeout: float) -> None:
        self.page.evaluate(RUN, command)
        if wait:
            self.wait_idle(timeout)

    # Looking

    def cell(self, index: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(index)

    def cell_output(self, index: int) -> Locator:
        """All outputs of a cell; there and empty while it has none."""
        return self.cell(index).locator(".jp-Cell-outputArea")

    def screenshot(self, index: int, path: Path) -> Path:
        """Save a picture of a whole cell, however high; the window grows for as long as it takes."""
        box = self.cell(index).bounding_box()
        assert box is not None, f"cell {index} is not visible"
        self.page.set_viewport_size({"width": WIDTH, "height": max(HEIGHT, int(box["height"]) + 200)})
        self.cell(index).screenshot(path=path)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        return path

    @property
    def foreign_requests(self) -> list[str]:
        """Requests that went, or tried to go, to another place than this JupyterLab."""
        parts = [(url, urlsplit(url)) for url in self.requests]
        home = urlsplit(self._lab.url).netloc
        return [url for url, part in parts if part.scheme not in LOCAL_SCHEMES and part.netloc != home]

    def errors_so_far(self) -> list[str]:
        """`console_errors`, with those that Playwright has heard of and not yet told."""
        self.page.wait_for_timeout(1)
        return self.console_errors

    @property
    def trusted(self) -> bool:
        """Whether JupyterLab trusts every cell, and so shows its outputs unsanitized."""
        cells = "[...jupyterapp.shell.currentWidget.content.widgets]"
        return bool(self.page.evaluate(f"() => {cells}.every(cell => cell.model.trusted)"))

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.console_errors.append(message.text)

    # The file

    def save(self) -> Path:
        self.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
        return self._lab.notebooks / self.name

    def reopen_trusted(self) -> None:
        """Save, and open the notebook as its owner does the next day: outputs trusted, no kernel of before, no widget state."""
        self.save()
        self._lab.stop_kernels()
        self.open(self.name)

    def reopen_untrusted(self) -> None:
        """Save, and open a copy as if it had come by mail: outputs untrusted, no kernel of before, no widget state."""
        notebook = read_notebook(self.save())
        notebook.metadata["came_from"] = "elsewhere"  # another content than the one JupyterLab has signed
        notebook.metadata.pop("widgets", None)
        copy = f"untrusted-{self.name}"
        nbformat.write(notebook, self._lab.notebooks / copy)
        self._lab.stop_kernels()
        self.open(copy)


@contextmanager
def running_lab(
    folder: Path, playwright: Playwright, version: KernelVersion = INSTALLED, application: Application = "lab"
) -> Iterator[Lab]:
    """Start JupyterLab or Notebook 7 on `folder`/notebooks, with kernels of `version`, and a browser for it.

    Raises:
        RuntimeError: there is no Chromium, or the server ended at once.
    """
    executable = chromium()
    environment = lab_environment(folder, version)
    (folder / "notebooks").mkdir()
    with serving(folder, environment, application) as url:
        browser = playwright.chromium.launch(
            executable_path=executable, args=CHROMIUM_OPTIONS, env={**kernel_environment(folder)}
        )
        try:
            yield Lab(folder, url, browser, application)
        finally:
            browser.close()


def chromium() -> Path:
    if not CHROMIUM.exists():
        raise RuntimeError(f"the browser tests need {CHROMIUM}: apt-get install chromium")
    return CHROMIUM


def lab_environment(folder: Path, version: KernelVersion) -> dict[str, str]:
    environment = kernel_environment(folder)
    write_kernel_spec(Path(environment["JUPYTER_DATA_DIR"]), version)
    page_config = Path(environment["JUPYTER_CONFIG_DIR"], "labconfig", "page_config.json")
    page_config.parent.mkdir(parents=True)
    page_config.write_text(json.dumps({"disabledExtensions": dict.fromkeys(DISABLED_EXTENSIONS, True)}))
    return environment | {
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_PREFER_ENV_PATH": "0",  # our python3 kernel before the one of the virtual environment
    }


@contextmanager
def serving(folder: Path, environment: Mapping[str, str], application: Application) -> Iterator[str]:
    """Run the server; its address, without a slash at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "ServerApp.root_dir": folder / "notebooks",
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "ServerApp.disable_check_xsrf": True,  # so that `Lab.stop_kernels` need not be a browser
        "IdentityProvider.token": "",
        f"{CLASSES[application]}.expose_app_in_browser": True,
        "LabApp.extension_manager": "readonly",
    }
    command = [sys.executable, "-m", MODULES[application], *(f"--{name}={value}" for name, value in options.items())]
    url = f"http://127.0.0.1:{port}"
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for_server(server, url, folder / "lab.log")
            yield url
        finally:
            server.terminate()
            server.wait(30)


def wait_for_server(server: subprocess.Popen[bytes], url: str, log: Path, timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            with DIRECT.open(f"{url}/api/status", timeout=5):
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"JupyterLab did not start; its log:\n{log.read_text()}") from None
            time.sleep(0.05)
