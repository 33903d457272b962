//! Graphs.

use super::{exports, put};
use crate::codes::{INVALID_HANDLE, INVALID_VALUE};
use crate::graph::Graph;
use crate::work::Action;
use std::ffi::c_ulonglong;

exports! {
    fn cuGraphInstantiateWithFlags(driver, to: *mut u64, graph: u64, _flags: c_ulonglong) {
        driver.ready()?;
        let Some(known) = driver.graphs.get(&graph) else {
            driver.fault("cuGraphInstantiate of what is no graph, or was destroyed");
            return Err(INVALID_VALUE);
        };
        let executable = Graph { context: known.context, nodes: known.nodes.clone() };
        let handle = driver.handle();
        driver.executables.insert(handle, executable);
        put(to, handle)
    }

    fn cuGraphLaunch(driver, executable: u64, given: u64) {
        let stream = driver.stream(given)?;
        let Some(known) = driver.executables.get(&executable) else {
            driver.fault("cuGraphLaunch of what is no executable graph, or was destroyed");
            return Err(INVALID_VALUE);
        };
        if known.context != driver.streams[&stream].context {
            driver.fault("cuGraphLaunch: graph and stream are of different contexts");
            return Err(INVALID_VALUE);
        }
        let nodes = known.nodes.clone();
        for node in nodes.iter() {
            if let Action::Kernel(kernel) = &node.action
                && !driver.modules.contains_key(&kernel.module)
            {
                driver.fault("cuGraphLaunch: the module of one of its kernels was unloaded");
                return Err(INVALID_HANDLE);
            }
        }
        let uid = driver.handle();
        driver.enqueue(stream, Action::Graph { uid, nodes })
    }

    fn cuGraphExecDestroy(driver, executable: u64) {
        driver.ready()?;
        if driver.executables.remove(&executable).is_none() {
            driver.fault("cuGraphExecDestroy of what is no executable graph, or was destroyed");
            return Err(INVALID_VALUE);
        }
        Ok(())
    }

    fn cuGraphDestroy(driver, graph: u64) {
        driver.ready()?;
        if driver.graphs.remove(&graph).is_none() {
            driver.fault("cuGraphDestroy of what is no graph, or was destroyed");
            return Err(INVALID_VALUE);
        }
        Ok(())
    }
}
