//! What exists: pods, workloads, Services, nodes, policies, and who had which address when.
