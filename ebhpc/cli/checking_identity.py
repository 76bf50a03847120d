"""What ``ebhpc check`` says of issuers, rates and rules."""

from __future__ import annotations

from ebhpc.config import Config, Issuer
from ebhpc.config.rules import OthersRule
from ebhpc.model import Finding


def check_identity(config: Config) -> list[Finding]:
    """Look whether issuers answer, and whether rules name what there is."""
    findings = [_issuer(issuer) for issuer in config.issuers]
    if not _is_near(config) and config.api.rate_per_address is None:
        findings.append(
            Finding(
                level="WARN",
                subject="rates",
                text="anybody who reaches the API may ask as often as they like",
                advice="set api.rate_per_address and api.rate_per_user, as 1200/1m",
            )
        )
    return findings + _rules(config)


def _issuer(settings: Issuer) -> Finding:
    from ebhpc.api.issuers import IssuerSilent, OpenIssuer

    subject = f"issuer {settings.name}"
    issuer = OpenIssuer(settings)
    try:
        count = issuer.published_keys()
    except IssuerSilent as error:
        return Finding(
            level="ERROR", subject=subject, text=str(error), advice="look at its url, and at the network from here"
        )
    finally:
        issuer.close()
    if settings.client_secret_file is not None:
        try:
            settings.client_secret_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            return Finding(level="ERROR", subject=subject, text=f"client_secret_file cannot be read: {error}")
    return Finding(level="INFO", subject=subject, text=f"answers, with {count} keys")


def _is_near(config: Config) -> bool:
    """Whether the API listens where only this host, or a proxy on it, reaches it."""
    return config.api.bind.host in (None, "127.0.0.1", "::1", "localhost")


def _rules(config: Config) -> list[Finding]:
    policy = config.policy
    platforms = {platform.name for platform in config.platforms}
    issuers = {issuer.name for issuer in config.issuers} | {"local"}
    findings = []
    for rule in policy.rules():
        unknown = [f"the platform {name}" for name in rule.platforms if name not in platforms]
        for who in (rule.who, rule.whose) if isinstance(rule, OthersRule) else (rule.who,):
            unknown += [f"the issuer {name}" for name in who.issuers if name not in issuers]
            for name in (*who.users, *who.groups):
                prefix, colon, _ = name.partition(":")
                if colon and prefix not in issuers:
                    unknown.append(f"the issuer {prefix} (of {name})")
            unknown += [f"the group {name}" for name in who.groups if ":" not in name and name not in policy.groups]
        findings += [_not_there(rule.name, what) for what in dict.fromkeys(unknown)]
    return findings


def _not_there(rule: str, what: str) -> Finding:
    return Finding(
        level="WARN",
        subject=f"rule {rule}",
        text=f"it names {what}, which is not there",
        advice="look at policy in ebhpc.yaml",
    )
