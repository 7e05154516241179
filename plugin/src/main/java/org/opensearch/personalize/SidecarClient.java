package org.opensearch.personalize;

import java.io.Closeable;
import java.io.IOException;
import java.net.ConnectException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Map;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.BooleanSupplier;

import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.unit.TimeValue;
import org.opensearch.common.util.concurrent.OpenSearchExecutors;
import org.opensearch.core.action.ActionListener;
import org.opensearch.core.common.settings.SecureString;
import org.opensearch.core.tasks.TaskCancelledException;
import org.opensearch.threadpool.Scheduler.ScheduledCancellable;
import org.opensearch.threadpool.ThreadPool;

/**
 * Asks sidecars, without ever making a thread of the node wait.
 *
 * <p>One pooled HTTP client a node. Its two threads do nothing but HTTP; answers are read and
 * searches continued on the node's generic pool. Every call ends by its deadline, and calls its
 * listener exactly once.
 */
final class SidecarClient implements Closeable {

    private static final Logger logger = LogManager.getLogger(SidecarClient.class);

    private static final String PATH = "/_personalize/rescore";
    private static final String AUTHORIZATION = "Authorization";
    private static final int HTTP_THREADS = 2;
    /** Explanations of the largest window take some ten megabytes. */
    private static final int MOST_ANSWER_BYTES = 32 * 1024 * 1024;
    /** How often a call under way looks whether its search was cancelled. */
    private static final long LOOK_MS = 10;

    private final ThreadPool threadPool;
    private final ExecutorService httpThreads;
    private final HttpClient http;
    private final String authorization;
    private final int maxInFlight;
    private final Semaphore places;
    private final int breakerFailures;
    private final int breakerPauseMs;
    private final Map<String, SidecarBreaker> breakers = new ConcurrentHashMap<>();

    SidecarClient(Settings settings, ThreadPool threadPool) {
        this.authorization = secret(settings);
        this.threadPool = threadPool;
        this.httpThreads = Executors.newFixedThreadPool(
            HTTP_THREADS,
            OpenSearchExecutors.daemonThreadFactory(settings, "personalize_http")
        );
        this.http = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1) // no upgrade dance: the sidecar speaks 1.1
            .followRedirects(HttpClient.Redirect.NEVER)
            .executor(httpThreads)
            .build();
        this.maxInFlight = PersonalizeSettings.MAX_IN_FLIGHT.get(settings);
        this.places = new Semaphore(maxInFlight);
        this.breakerFailures = PersonalizeSettings.BREAKER_FAILURES.get(settings);
        this.breakerPauseMs = PersonalizeSettings.BREAKER_PAUSE_MS.get(settings);
    }

    /** Reads the secret now: the keystore is closed once the node is up. */
    private static String secret(Settings settings) {
        try (SecureString secret = PersonalizeSettings.AUTHORIZATION.get(settings)) {
            HttpRequest.newBuilder().header(AUTHORIZATION, secret.toString());
            return secret.toString();
        } catch (IllegalArgumentException e) { // not as the cause: its message quotes the secret
            throw new IllegalArgumentException(
                "[" + PersonalizeSettings.AUTHORIZATION.getKey() + "] in the keystore holds a "
                    + "character that a header may not, such as a line's end; add it again"
            );
        }
    }

    /**
     * One question: where it goes, how long it may take, and whether anybody still wants it.
     *
     * @param mayKnow whether the endpoint may be told the secret
     */
    record Question(URI endpoint, boolean mayKnow, byte[] body, int hits, int timeoutMs,
        BooleanSupplier isCancelled) {

        HttpRequest http(String authorization) {
            String base = endpoint.toString();
            String root = base.endsWith("/") ? base.substring(0, base.length() - 1) : base;
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(root + PATH))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofByteArray(body));
            if (authorization.isEmpty() == false && mayKnow) {
                request.header(AUTHORIZATION, authorization);
            }
            return request.build();
        }
    }

    /**
     * Asks for an order and returns at once.
     *
     * @param listener gets the answer, a {@link SkipException} saying why there is none, or a
     *     {@link TaskCancelledException}; on a thread of the generic pool, or on this one when the
     *     question is refused
     */
    void ask(Question question, ActionListener<RescoreAnswer> listener) {
        SidecarBreaker breaker = breakers.computeIfAbsent(
            question.endpoint().getAuthority(),
            name -> new SidecarBreaker(
                breakerFailures,
                breakerPauseMs,
                threadPool::relativeTimeInMillis
            )
        );
        if (places.tryAcquire() == false) {
            listener.onFailure(new SkipException(SkipReason.OVERLOAD, "too many calls under way"));
            return;
        }
        if (breaker.allows() == false) {
            places.release();
            listener.onFailure(new SkipException(SkipReason.CIRCUIT_OPEN, "sidecar kept failing"));
            return;
        }
        new Call(question, breaker, listener).start();
    }

    /** Returns how many calls are under way. */
    int inFlight() {
        return maxInFlight - places.availablePermits();
    }

    @Override
    public void close() {
        http.shutdownNow();
        httpThreads.shutdownNow();
    }

    /** One question under way: whichever of answer, deadline and cancellation is first ends it. */
    private final class Call {

        private final Question question;
        private final SidecarBreaker breaker;
        private final ActionListener<RescoreAnswer> listener;
        private final long deadlineNanos;
        private final AtomicBoolean ended = new AtomicBoolean();
        private final AtomicReference<Runnable> abort = new AtomicReference<>(() -> {});
        private volatile ScheduledCancellable look;

        Call(Question question, SidecarBreaker breaker, ActionListener<RescoreAnswer> listener) {
            this.question = question;
            this.breaker = breaker;
            this.listener = listener;
            this.deadlineNanos = System.nanoTime() + question.timeoutMs() * 1_000_000L;
        }

        void start() {
            lookLater();
            send(true);
        }

        private void send(boolean mayRetry) {
            var exchange = http.sendAsync(
                question.http(authorization),
                BoundedBody.handler(MOST_ANSWER_BYTES)
            );
            abort.set(() -> exchange.cancel(true));
            if (ended.get()) {
                exchange.cancel(true); // ended between two attempts
            }
            exchange.whenComplete((response, error) -> onThreadOfTheNode(() -> {
                if (error == null) {
                    answered(response);
                } else if (mayRetry && isStale(error) && ended.get() == false) {
                    send(false);
                } else {
                    end(unavailable(error));
                }
            }));
        }

        private void answered(HttpResponse<byte[]> response) {
            try {
                end(RescoreAnswer.parse(response.statusCode(), response.body(), question.hits()));
            } catch (SkipException e) {
                end(e);
            }
        }

        /** Looks after the call until it has ended: deadline first, then cancellation. */
        private void look() {
            if (ended.get()) {
                return;
            }
            if (question.isCancelled().getAsBoolean()) {
                end(new TaskCancelledException("search was cancelled while the sidecar was asked"));
            } else if (leftMs() <= 0) {
                String detail = "no answer in " + question.timeoutMs() + " ms";
                end(new SkipException(SkipReason.TIMEOUT, detail));
            } else {
                lookLater();
            }
        }

        private void lookLater() {
            TimeValue delay = TimeValue.timeValueMillis(Math.clamp(leftMs(), 1, LOOK_MS));
            look = threadPool.schedule(this::look, delay, ThreadPool.Names.GENERIC);
        }

        private long leftMs() {
            return Math.ceilDiv(deadlineNanos - System.nanoTime(), 1_000_000L);
        }

        private void end(RescoreAnswer answer) {
            if (finish()) {
                breaker.succeeded();
                listener.onResponse(answer);
            }
        }

        private void end(Exception failure) {
            if (finish()) {
                if ((failure instanceof SkipException skip && skip.isSidecars()) == false) {
                    breaker.ended();
                } else if (breaker.failed()) {
                    logger.warn(
                        "sidecar [{}] failed {} times in a row, is left alone for {} ms: {}",
                        question.endpoint(),
                        breakerFailures,
                        breakerPauseMs,
                        failure.getMessage()
                    );
                }
                listener.onFailure(failure);
            }
        }

        private boolean finish() {
            if (ended.compareAndSet(false, true) == false) {
                return false;
            }
            places.release();
            ScheduledCancellable next = look;
            if (next != null) { // null: the first look came before it was told of
                next.cancel();
            }
            abort.get().run();
            return true;
        }
    }

    private void onThreadOfTheNode(Runnable work) {
        try {
            threadPool.generic().execute(work);
        } catch (RejectedExecutionException e) {
            work.run(); // the node stops: better here than never
        }
    }

    /** A kept connection that the sidecar had just closed: asking again is safe, and enough. */
    private static boolean isStale(Throwable error) {
        Throwable cause = cause(error);
        return cause instanceof IOException && cause instanceof ConnectException == false;
    }

    private static SkipException unavailable(Throwable error) {
        Throwable cause = cause(error);
        String detail = "sidecar cannot be asked: " + cause.getClass().getSimpleName();
        return new SkipException(SkipReason.SIDECAR_UNAVAILABLE, detail, cause);
    }

    private static Throwable cause(Throwable error) {
        boolean isWrapped = error instanceof CompletionException;
        return isWrapped && error.getCause() != null ? error.getCause() : error;
    }
}
