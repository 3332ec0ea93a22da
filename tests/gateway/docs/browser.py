"""Opens the page of `docs` in headless Chromium as a user would, and watches what it asks for.

browser.py ORIGIN PATH: logs in through the page, authorises with the token that it shows, and changes the password with
it. Prints what is left to judge as JSON: every URL that was asked for, what the console said, what the page kept.
"""

import json
import shutil
import sys
import tempfile
import time

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

origin, path = sys.argv[1:]
DEADLINE = 60


def chromium(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        "--no-proxy-server", "--window-size=1400,2000", f"--user-data-dir={profile}",
    ]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


class Page:
    def __init__(self, driver):
        self.driver = driver
        self.wait = WebDriverWait(driver, DEADLINE)

    def first(self, css, within=None):
        """The first visible element, once there is one."""
        def visible(_):
            found = (within or self.driver).find_elements(By.CSS_SELECTOR, css)
            return next((element for element in found if element.is_displayed()), None)
        return self.wait.until(visible, css)

    def click(self, css, within=None):
        self.driver.execute_script("arguments[0].click()", self.first(css, within))

    def fill(self, element, text):
        # as React sees typing
        self.driver.execute_script(
            "const [e, v] = arguments; Object.getOwnPropertyDescriptor(Object.getPrototypeOf(e), 'value').set.call(e, v);"
            "e.dispatchEvent(new Event('input', { bubbles: true }))", element, text)

    def operation(self, method, path):
        for block in self.driver.find_elements(By.CSS_SELECTOR, f".opblock-{method}"):
            if block.find_element(By.CSS_SELECTOR, ".opblock-summary-path").text.replace("\u200b", "") == path:
                return block
        raise AssertionError(f"no {method} {path} on the page")

    def call(self, method, path, body):
        """Executes an operation; the status and body that the page shows."""
        block = self.operation(method, path)
        self.click(".opblock-summary-control", block)
        self.fill(self.first("textarea.body-param__text", block), json.dumps(body))
        self.click("button.execute", block)
        status = self.first(".live-responses-table tbody .response-col_status", block).text
        return int(status.split()[0]), self.first(".live-responses-table tbody .highlight-code", block).text

    def authorise(self, scheme, value):
        self.click("button.authorize")
        for form in self.driver.find_elements(By.CSS_SELECTOR, ".auth-container"):
            if form.find_element(By.CSS_SELECTOR, "h4").text.startswith(scheme):
                self.fill(self.first("input", form), value)
                self.click("button.authorize", form)
        self.click("button.btn-done")


profile = tempfile.mkdtemp()
driver = chromium(profile)
try:
    page = Page(driver)
    # a link of somebody's: were it heeded, tokens would go to a server of theirs
    elsewhere = "http%3A%2F%2Fattacker.invalid%2Fspec.json"
    driver.get(f"{origin}{path}?url={elsewhere}&configUrl={elsewhere}&urls.primaryName=x&oauth2RedirectUrl={elsewhere}")
    page.first(".opblock")
    title = page.first(".info .title").text
    status, said = page.call("post", "/auth/login", {"username": "user", "password": "userpassword"})
    assert status == 200, (status, said)
    token = json.loads(said[said.index("{"):said.rindex("}") + 1])["access_token"]
    page.authorise("bearer", token)
    change = {"password": "userpassword", "new_password": "another password"}
    changed, _ = page.call("post", "/auth/change-password", change)
    kept = driver.execute_script("return [Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]")
    pwned = driver.execute_script("return window.pwned === undefined ? null : String(window.pwned)")
    driver.get(f"{origin}{path}")
    page.first(".opblock")
    still_authorised = len(driver.find_elements(By.CSS_SELECTOR, "button.authorize.locked"))
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    print(json.dumps({
        "title": title,
        "changed": changed,
        "asked": sorted({e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}),
        "console": [e["message"] for e in driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")],
        "kept": kept,
        "pwned": pwned,
        "still_authorised": still_authorised,
    }))
finally:
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)
