import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs many of Kafka's command-line tools in one JVM, because starting a JVM for each costs more than the tests.
 *
 * Reads lines on standard input: {@code run ID CLASS STDIN ARG...} or {@code stop ID}, fields separated by tabs,
 * STDIN and ARGs in base64. Writes lines: {@code ID o BASE64}, {@code ID e BASE64} as the tool prints, and
 * {@code ID x CODE} when it has ended. Tools run side by side: each has its own thread, its own standard streams
 * (inherited by the threads it starts) and its own copy of the tool classes, whose static fields it may change.
 */
public final class Driver {
    private static final InheritableThreadLocal<Run> CURRENT = new InheritableThreadLocal<>();
    private static final Map<String, Run> RUNS = new ConcurrentHashMap<>();
    private static final PrintStream ANSWERS = System.out;
    private static final PrintStream ERRORS = System.err;

    private static final class Stop extends RuntimeException {
        Stop(int code) {
            super("exit " + code, null, false, false);
        }
    }

    private static final class Run implements Runnable {
        final String id;
        final String tool;
        final String[] args;
        final InputStream in;
        final List<Runnable> hooks = new ArrayList<>();
        Integer code;
        Thread thread;

        Run(String id, String tool, byte[] in, String[] args) {
            this.id = id;
            this.tool = tool;
            this.in = new ByteArrayInputStream(in);
            this.args = args;
        }

        /** The first exit code counts: what the tool does on seeing our exception does not. */
        synchronized void exit(int value) {
            if (code == null) code = value;
        }

        @Override
        public void run() {
            CURRENT.set(this);
            try {
                ClassLoader loader = new ToolLoader();
                Thread.currentThread().setContextClassLoader(loader);
                loader.loadClass(tool).getMethod("main", String[].class).invoke(null, (Object) args);
                exit(0);
            } catch (java.lang.reflect.InvocationTargetException e) {
                if (!(e.getCause() instanceof Stop)) e.getCause().printStackTrace();
                exit(1);
            } catch (Throwable e) {
                e.printStackTrace();
                exit(1);
            } finally {
                System.out.flush();
                System.err.flush();
                RUNS.remove(id);
                answer(id, 'x', Integer.toString(code));
            }
        }

        void stop() {
            exit(130);
            for (Runnable hook : hooks) new Thread(hook).start();
            if (hooks.isEmpty()) thread.interrupt();
        }
    }

    /** Loads the tools anew for each run; clients and everything else come from the common class path. */
    private static final class ToolLoader extends URLClassLoader {
        ToolLoader() throws IOException {
            super(toolJars(), Driver.class.getClassLoader());
        }

        private static URL[] toolJars() throws IOException {
            List<URL> urls = new ArrayList<>();
            for (String part : System.getProperty("java.class.path").split(":"))
                if (part.contains("kafka-tools") || part.contains("kafka_2.13") || !part.endsWith(".jar"))
                    urls.add(Paths.get(part).toUri().toURL());
            return urls.toArray(new URL[0]);
        }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            boolean own = name.startsWith("org.apache.kafka.tools.") || name.startsWith("kafka.") || name.equals("Apps") || name.startsWith("Apps$");
            if (own) {
                synchronized (getClassLoadingLock(name)) {
                    Class<?> c = findLoadedClass(name);
                    if (c == null) {
                        try {
                            c = findClass(name);
                        } catch (ClassNotFoundException e) {
                            return super.loadClass(name, resolve);
                        }
                    }
                    return c;
                }
            }
            return super.loadClass(name, resolve);
        }
    }

    private static final class Dispatch extends OutputStream {
        private final char stream;
        private final PrintStream fallback;

        Dispatch(char stream, PrintStream fallback) {
            this.stream = stream;
            this.fallback = fallback;
        }

        @Override
        public void write(int b) {
            write(new byte[] {(byte) b}, 0, 1);
        }

        @Override
        public void write(byte[] bytes, int from, int length) {
            Run run = CURRENT.get();
            if (run == null) {
                fallback.write(bytes, from, length);
                return;
            }
            answer(run.id, stream, Base64.getEncoder().encodeToString(java.util.Arrays.copyOfRange(bytes, from, from + length)));
        }
    }

    private static final class Input extends InputStream {
        private InputStream of() {
            Run run = CURRENT.get();
            return run == null ? InputStream.nullInputStream() : run.in;
        }

        @Override
        public int read() throws IOException {
            return of().read();
        }

        @Override
        public int read(byte[] bytes, int from, int length) throws IOException {
            return of().read(bytes, from, length);
        }
    }

    private static void answer(String id, char kind, String text) {
        synchronized (ANSWERS) {
            ANSWERS.print(id + "\t" + kind + "\t" + text + "\n");
            ANSWERS.flush();
        }
    }

    public static void main(String[] none) throws Exception {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        System.setOut(new PrintStream(new Dispatch('o', ERRORS), true));
        System.setErr(new PrintStream(new Dispatch('e', ERRORS), true));
        System.setIn(new Input());
        Exit.Procedure procedure = (code, message) -> {
            Run run = CURRENT.get();
            if (run != null) run.exit(code);
            throw new Stop(code);
        };
        Exit.setExitProcedure(procedure);
        Exit.setHaltProcedure(procedure);
        Exit.setShutdownHookAdder((name, hook) -> {
            Run run = CURRENT.get();
            if (run != null) run.hooks.add(hook);
        });
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] f = line.split("\t", -1);
            if (f[0].equals("stop")) {
                Run run = RUNS.get(f[1]);
                if (run != null) run.stop();
                continue;
            }
            String[] args = new String[f.length - 4];
            for (int i = 4; i < f.length; i++) args[i - 4] = new String(Base64.getDecoder().decode(f[i]), StandardCharsets.UTF_8);
            Run run = new Run(f[1], f[2], Base64.getDecoder().decode(f[3]), args);
            run.thread = new Thread(null, run, "run-" + f[1]);
            run.thread.setDaemon(true);
            RUNS.put(run.id, run);
            run.thread.start();
        }
        Runtime.getRuntime().halt(0);
    }
}
