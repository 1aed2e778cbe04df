//! Observation + cluster + policy → judged edges; keeps the ledger. The one place they meet.
