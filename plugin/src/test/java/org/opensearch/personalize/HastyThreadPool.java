package org.opensearch.personalize;

import java.util.concurrent.ExecutionException;

import org.opensearch.common.unit.TimeValue;
import org.opensearch.threadpool.TestThreadPool;

/** Runs scheduled work before it returns, as when the machine holds the caller up. */
final class HastyThreadPool extends TestThreadPool {

    HastyThreadPool() {
        super("hasty");
    }

    @Override
    public ScheduledCancellable schedule(Runnable work, TimeValue delay, String executor) {
        try {
            executor(executor).submit(work).get();
        } catch (ExecutionException | InterruptedException e) {
            throw new AssertionError(e);
        }
        return super.schedule(() -> {}, delay, executor);
    }
}
