"""The record: ledger, audit chain, git line, receipts, results.tsv, and verify. TRUSTED."""
