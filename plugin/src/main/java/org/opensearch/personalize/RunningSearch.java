package org.opensearch.personalize;

import org.opensearch.tasks.CancellableTask;

/** One search that this node coordinates, as its processors find it in the thread context. */
final class RunningSearch {

    private final CancellableTask task;
    private final boolean isRepeated;
    private volatile boolean isWidened;

    RunningSearch(CancellableTask task, boolean isRepeated) {
        this.task = task;
        this.isRepeated = isRepeated;
    }

    /** Returns the search's task; null when it cannot be cancelled. */
    CancellableTask task() {
        return task;
    }

    /** Returns whether it runs for the second time, to be left as the client sent it. */
    boolean isRepeated() {
        return isRepeated;
    }

    /** Returns whether it asks for more than the client did. */
    boolean isWidened() {
        return isWidened;
    }

    void widened() {
        isWidened = true;
    }
}
