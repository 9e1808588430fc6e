"""Pages that are written from the code agree with it."""

from controlplane.security import permissions
from controlplane.settings import Settings
from tests.meta.repository import text
from tools import asyncapi_reference, reads_reference
from tools.settings_reference import page


def test_the_reference_of_the_settings_is_that_of_the_code() -> None:
    assert text("docs/settings.md") == page(), "Run `make reference`."


def test_the_matrix_of_permissions_is_that_of_the_catalog() -> None:
    assert text("docs/permissions.md") == permissions.page(), "Run `make reference`."


def test_every_setting_says_what_it_means() -> None:
    unexplained = [name for name, field in Settings.model_fields.items() if not (field.description or "").endswith(".")]
    assert unexplained == []


def test_what_the_gateway_says_of_reads_is_what_truthcore_says() -> None:
    assert text("controlplane/api/reads.json") == reads_reference.page(), "Run `make reference`."


def test_the_asyncapi_document_is_that_of_the_catalog() -> None:
    assert text("docs/asyncapi.yaml") == asyncapi_reference.page(), "Run `make reference`."
