package org.opensearch.personalize;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

import org.opensearch.core.action.ActionListener;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** A listener that remembers what it was told, and holds that it was told once. */
final class Heard<T> implements ActionListener<T> {

    private final CountDownLatch told = new CountDownLatch(1);
    private final AtomicInteger times = new AtomicInteger();
    private volatile T answer;
    private volatile Exception failure;
    private volatile String thread;

    @Override
    public void onResponse(T response) {
        answer = response;
        tell();
    }

    @Override
    public void onFailure(Exception e) {
        failure = e;
        tell();
    }

    T answer() throws InterruptedException {
        await();
        assertNotNull(answer, () -> "failed with " + failure);
        return answer;
    }

    Exception failure() throws InterruptedException {
        await();
        assertNotNull(failure);
        return failure;
    }

    SkipReason skip() throws InterruptedException {
        return assertInstanceOf(SkipException.class, failure()).reason();
    }

    String thread() {
        return thread;
    }

    private void tell() {
        thread = Thread.currentThread().getName();
        times.incrementAndGet();
        told.countDown();
    }

    private void await() throws InterruptedException {
        assertTrue(told.await(20, TimeUnit.SECONDS), "nothing heard");
        Thread.sleep(20); // time for a second call, which must not come
        assertEquals(1, times.get(), "listener was called more than once");
    }
}
