//! End-to-end tests: the real binary, real virtual machines on the real KVM, the real kernel and
//! CPython. Without KVM they fail, and say so.

#![allow(clippy::disallowed_methods)] // clocks are compared

mod agent;
mod audit;
mod cells;
mod clones;
mod common;
mod confine;
mod equivalence;
mod escape;
mod failures;
mod fake_agent;
mod faults;
mod files;
mod files_refused;
mod guest;
mod image;
mod interpreter;
mod jobs;
mod kernel_memory;
mod kernel_pages;
mod kernel_signals;
mod kernel_state;
mod kernel_traps;
mod kvm_mode;
mod lab;
mod library;
mod limits;
mod load;
mod machine;
mod manual;
mod mcp;
mod mcp_abuse;
mod mcp_advice;
mod mcp_ends;
mod mcp_files;
mod mcp_http;
mod mcp_messages;
mod mcp_policy;
mod mcp_unread;
mod options;
mod output;
mod policy;
mod record;
mod record_channel;
mod root;
mod scarcity;
mod sigkill;
mod staleness;
mod templates;
mod warm;
mod web;
