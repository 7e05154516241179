package org.opensearch.personalize;

import java.io.IOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;

import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.opensearch.common.settings.MockSecureSettings;
import org.opensearch.common.settings.Settings;
import org.opensearch.core.tasks.TaskCancelledException;
import org.opensearch.threadpool.TestThreadPool;
import org.opensearch.threadpool.ThreadPool;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** The client against a server that misbehaves in each way that it must survive. */
class SidecarClientTests {

    private static final Settings SETTINGS = Settings.builder()
        .put("plugins.personalize.max_in_flight", 3)
        .put("plugins.personalize.breaker.failures", 3)
        .put("plugins.personalize.breaker.pause_ms", 60_000)
        .build();

    private TestThreadPool threadPool;
    private FakeSidecar sidecar;
    private SidecarClient client;

    @BeforeEach
    void start() throws IOException {
        threadPool = new TestThreadPool("sidecar-client");
        sidecar = new FakeSidecar();
        client = new SidecarClient(SETTINGS, threadPool);
    }

    @AfterEach
    void stop() throws IOException {
        client.close();
        sidecar.close();
        ThreadPool.terminate(threadPool, 10, TimeUnit.SECONDS);
    }

    @Test
    void answersComeOnAThreadOfTheNode() throws Exception {
        Heard<RescoreAnswer> heard = ask(1000);
        assertArrayEquals(new int[]{ 1, 0 }, heard.answer().order());
        assertTrue(heard.thread().contains("[generic]"), heard.thread());
        assertEquals(0, client.inFlight());
    }

    @Test
    void connectionIsKeptForTheNextCall() throws Exception {
        for (int i = 0; i < 5; i++) {
            ask(1000).answer();
        }
        assertEquals(1, sidecar.connections.get());
    }

    @Test
    void secretOfTheKeystoreIsSentWhereThereIsOne() throws Exception {
        ask(1000).answer();
        assertFalse(sidecar.heads.get(0).contains("Authorization"));
        learnTheSecret();
        ask(1000).answer();
        assertTrue(sidecar.heads.get(1).contains("Authorization: Bearer of the secret\r\n"));
    }

    @Test
    void secretIsNotSentWhereItIsNotMeant() throws Exception {
        learnTheSecret();
        Heard<RescoreAnswer> heard = new Heard<>();
        byte[] body = "{\"hits\":[{\"id\":\"a\"},{\"id\":\"b\"}]}".getBytes(StandardCharsets.UTF_8);
        client.ask(
            new SidecarClient.Question(sidecar.endpoint(), false, body, 2, 1000, () -> false),
            heard
        );
        heard.answer();
        assertFalse(sidecar.heads.get(0).contains("Authorization"));
    }

    @Test
    void searchThatTheSidecarRefusesDoesNotSpeakAgainstTheSidecar() throws Exception {
        sidecar.behaviour = FakeSidecar.saying(400, "{}");
        for (int i = 0; i < 5; i++) {
            assertEquals(SkipReason.SIDECAR_ERROR, ask(1000).skip());
        }
        sidecar.behaviour = FakeSidecar.reversing();
        ask(1000).answer();
    }

    @Test
    void answerThatWouldNotFitIsGivenUp() throws Exception {
        sidecar.behaviour = (request, out) -> {
            out.write("HTTP/1.1 200 OK\r\n\r\n".getBytes(StandardCharsets.UTF_8));
            byte[] piece = new byte[1024 * 1024];
            for (int i = 0; i < 64; i++) {
                out.write(piece);
            }
            return false;
        };
        assertEquals(SkipReason.SIDECAR_UNAVAILABLE, ask(20_000).skip());
    }

    @Test
    void slowSidecarEndsAtTheDeadline() throws Exception {
        sidecar.behaviour = FakeSidecar.stalling();
        long started = System.nanoTime();
        assertEquals(SkipReason.TIMEOUT, ask(50).skip());
        long tookMs = (System.nanoTime() - started) / 1_000_000;
        assertTrue(tookMs >= 49 && tookMs < 1000, tookMs + " ms");
        assertEquals(0, client.inFlight());
    }

    @Test
    void bodyThatStallsEndsAtTheDeadlineToo() throws Exception {
        sidecar.behaviour = (request, out) -> {
            out.write(
                "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".getBytes(StandardCharsets.UTF_8)
            );
            out.flush();
            return FakeSidecar.stalling().answer(request, out);
        };
        assertEquals(SkipReason.TIMEOUT, ask(50).skip());
    }

    @Test
    void nobodyThereIsSaidAtOnce() throws Exception {
        URI gone = sidecar.endpoint();
        sidecar.close();
        assertEquals(SkipReason.SIDECAR_UNAVAILABLE, ask(gone, 5000).skip());
    }

    @Test
    void brokenAnswersAreUnavailability() throws Exception {
        List<String> beginnings =
            List.of("", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{");
        for (String text : beginnings) {
            sidecar.behaviour = FakeSidecar.breakingOffAfter(text);
            assertEquals(SkipReason.SIDECAR_UNAVAILABLE, ask(5000).skip(), text);
            sidecar.behaviour = FakeSidecar.reversing();
            ask(1000).answer();
        }
    }

    @Test
    void connectionClosedBehindOurBackIsTriedOnceMore() throws Exception {
        sidecar.behaviour = FakeSidecar.closingSilently(FakeSidecar.reversing());
        for (int i = 0; i < 20; i++) {
            assertEquals(17L, ask(2000).answer().state());
        }
    }

    @Test
    void errorsAndNonsenseAreErrors() throws Exception {
        sidecar.behaviour = FakeSidecar.saying(500, "{}");
        assertEquals(SkipReason.SIDECAR_ERROR, ask(1000).skip());
        sidecar.behaviour = FakeSidecar.saying(200, "<html>");
        assertEquals(SkipReason.SIDECAR_ERROR, ask(1000).skip());
    }

    @Test
    void refusalOfTheSidecarIsAnAnswer() throws Exception {
        sidecar.behaviour =
            FakeSidecar.saying(200, "{\"applied\":false,\"reason\":\"no_history\"}");
        for (int i = 0; i < 5; i++) {
            assertEquals(SkipReason.NO_HISTORY, ask(1000).answer().refusal());
        }
    }

    @Test
    void callsUnderWayAreBounded() throws Exception {
        sidecar.behaviour = FakeSidecar.stalling();
        List<Heard<RescoreAnswer>> waiting = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
            waiting.add(begin(sidecar.endpoint(), 300, new AtomicBoolean()));
        }
        assertEquals(3, client.inFlight());
        assertEquals(SkipReason.OVERLOAD, ask(300).skip());
        for (Heard<RescoreAnswer> heard : waiting) {
            assertEquals(SkipReason.TIMEOUT, heard.skip());
        }
        assertEquals(0, client.inFlight());
    }

    @Test
    void sidecarThatKeepsFailingIsLeftAlone() throws Exception {
        failThreeTimes();
        assertEquals(SkipReason.CIRCUIT_OPEN, ask(1000).skip());
        assertEquals(3, sidecar.requests.size());
    }

    @Test
    void sidecarThatWasLeftAloneIsTriedAgain() throws Exception {
        client.close();
        Settings noPause =
            Settings.builder().put(SETTINGS).put("plugins.personalize.breaker.pause_ms", 0).build();
        client = new SidecarClient(noPause, threadPool);
        failThreeTimes();
        sidecar.behaviour = FakeSidecar.reversing();
        ask(1000).answer();
        ask(1000).answer();
    }

    private void failThreeTimes() throws Exception {
        sidecar.behaviour = FakeSidecar.saying(503, "");
        for (int i = 0; i < 3; i++) {
            assertEquals(SkipReason.SIDECAR_ERROR, ask(1000).skip());
        }
    }

    @Test
    void cancelledSearchEndsTheCall() throws Exception {
        sidecar.behaviour = FakeSidecar.stalling();
        AtomicBoolean cancelled = new AtomicBoolean();
        Heard<RescoreAnswer> heard = begin(sidecar.endpoint(), 20_000, cancelled);
        Thread.sleep(30);
        cancelled.set(true);
        assertInstanceOf(TaskCancelledException.class, heard.failure());
        assertEquals(0, client.inFlight());
    }

    @Test
    void callThatEndsAtItsFirstLookIsTold() throws Exception {
        client.close();
        ThreadPool.terminate(threadPool, 10, TimeUnit.SECONDS);
        threadPool = new HastyThreadPool();
        client = new SidecarClient(SETTINGS, threadPool);
        Heard<RescoreAnswer> heard = begin(sidecar.endpoint(), 20_000, new AtomicBoolean(true));
        assertInstanceOf(TaskCancelledException.class, heard.failure());
        assertEquals(0, client.inFlight());
    }

    @Test
    void secretThatNoHeaderCanHoldIsRefusedAtTheStartAndNotTold() {
        for (String secret : List.of("Bearer of\na line's end", "Bearer \u4e2d")) {
            var error = assertThrows(IllegalArgumentException.class, () -> learn(secret));
            assertTrue(error.getMessage().contains("[plugins.personalize.authorization]"));
            assertFalse(String.valueOf(error.getCause()).contains("Bearer"));
            assertFalse(error.getMessage().contains("Bearer"));
        }
    }

    private void learnTheSecret() throws IOException {
        learn("Bearer of the secret");
    }

    private void learn(String secret) throws IOException {
        MockSecureSettings keystore = new MockSecureSettings();
        keystore.setString("plugins.personalize.authorization", secret);
        client.close();
        client = new SidecarClient(
            Settings.builder().put(SETTINGS).setSecureSettings(keystore).build(),
            threadPool
        );
        keystore.close();
    }

    private Heard<RescoreAnswer> ask(int timeoutMs) {
        return ask(sidecar.endpoint(), timeoutMs);
    }

    private Heard<RescoreAnswer> ask(URI endpoint, int timeoutMs) {
        return begin(endpoint, timeoutMs, new AtomicBoolean());
    }

    private Heard<RescoreAnswer> begin(URI endpoint, int timeoutMs, AtomicBoolean cancelled) {
        byte[] body = "{\"hits\":[{\"id\":\"a\"},{\"id\":\"b\"}]}".getBytes(StandardCharsets.UTF_8);
        Heard<RescoreAnswer> heard = new Heard<>();
        client.ask(
            new SidecarClient.Question(endpoint, true, body, 2, timeoutMs, cancelled::get),
            heard
        );
        return heard;
    }
}
