"""A real browser: Chromium without a window, through its driver. See `.ci/run` for what it needs."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

_CHROMIUM, _DRIVER = "chromium", "chromedriver"
_QUIET = (  # so that it looks for no updates, and so for no network
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage"
).split()


class Browser:
    """A page in a browser, and what is asked of it."""

    def __init__(self, driver):
        self.driver = driver

    def open(self, page: Path | str, width=1280, height=900, scheme="light"):
        """Open a file or an address in a window of this size, and forget what was logged before."""
        colours = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", colours)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.errors()
        self.requests()
        self.driver.get(page if isinstance(page, str) else page.as_uri())

    def run(self, script, *arguments):
        """Run JavaScript; return its value."""
        return self.driver.execute_script(script, *arguments)

    def texts(self, selector):
        """Return the text of all elements."""
        return self.run("return Array.from(document.querySelectorAll(arguments[0]), e => e.textContent)", selector)

    def click(self, selector, number=0):
        """Click on one of the elements, as with the mouse."""
        element = self.driver.find_elements("css selector", selector)[number]
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def choose(self, name, value):
        """Select an option of a `select` element."""
        self.driver.find_element("css selector", f"select[name={name}] option[value='{value}']").click()

    def press(self, *keys):
        """Press keys on whatever has the focus."""
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def errors(self):
        """Return what the console and the content policy complained about since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Return the addresses that were requested since the last call, without `data:`."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]


@contextmanager
def chromium(folder: Path):
    """Start a browser with an empty profile; skip where there is none."""
    paths = {name: shutil.which(name) for name in (_CHROMIUM, _DRIVER)}
    missing = [name for name, path in paths.items() if path is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)} on this machine (Debian: apt-get install chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[_CHROMIUM]
    for argument in (*_QUIET, f"--user-data-dir={folder}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(paths[_DRIVER]))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
