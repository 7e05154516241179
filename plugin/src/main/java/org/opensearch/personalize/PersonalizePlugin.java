package org.opensearch.personalize;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;

import org.opensearch.action.ActionRequest;
import org.opensearch.action.support.ActionFilter;
import org.opensearch.cluster.metadata.IndexNameExpressionResolver;
import org.opensearch.cluster.node.DiscoveryNodes;
import org.opensearch.cluster.service.ClusterService;
import org.opensearch.common.settings.ClusterSettings;
import org.opensearch.common.settings.IndexScopedSettings;
import org.opensearch.common.settings.Setting;
import org.opensearch.common.settings.Settings;
import org.opensearch.common.settings.SettingsFilter;
import org.opensearch.core.action.ActionResponse;
import org.opensearch.core.common.io.stream.NamedWriteableRegistry;
import org.opensearch.core.xcontent.NamedXContentRegistry;
import org.opensearch.env.Environment;
import org.opensearch.env.NodeEnvironment;
import org.opensearch.plugins.ActionPlugin;
import org.opensearch.plugins.Plugin;
import org.opensearch.plugins.SearchPipelinePlugin;
import org.opensearch.plugins.SearchPlugin;
import org.opensearch.repositories.RepositoriesService;
import org.opensearch.rest.RestController;
import org.opensearch.rest.RestHandler;
import org.opensearch.script.ScriptService;
import org.opensearch.search.SearchExtBuilder;
import org.opensearch.search.pipeline.Processor;
import org.opensearch.search.pipeline.SearchRequestProcessor;
import org.opensearch.search.pipeline.SearchResponseProcessor;
import org.opensearch.search.pipeline.SystemGeneratedProcessor.SystemGeneratedFactory;
import org.opensearch.threadpool.ThreadPool;
import org.opensearch.transport.client.Client;
import org.opensearch.watcher.ResourceWatcherService;

/** Personalises searches inside OpenSearch, by asking a sidecar for the order of their hits. */
public final class PersonalizePlugin extends Plugin
    implements ActionPlugin, SearchPlugin, SearchPipelinePlugin {

    private final Settings settings;
    private volatile NodeServices services;

    /** Called by the node, with its settings. */
    public PersonalizePlugin(Settings settings) {
        this.settings = settings;
    }

    @Override
    public Collection<Object> createComponents(
        Client client,
        ClusterService clusterService,
        ThreadPool threadPool,
        ResourceWatcherService resourceWatcherService,
        ScriptService scriptService,
        NamedXContentRegistry xContentRegistry,
        Environment environment,
        NodeEnvironment nodeEnvironment,
        NamedWriteableRegistry namedWriteableRegistry,
        IndexNameExpressionResolver resolver,
        Supplier<RepositoriesService> repositories
    ) {
        SidecarClient sidecar = new SidecarClient(settings, threadPool);
        services = new NodeServices(
            client,
            clusterService,
            threadPool,
            resolver,
            namedWriteableRegistry,
            sidecar,
            new PersonalizeStats()
        );
        return List.of(services);
    }

    @Override
    public List<Setting<?>> getSettings() {
        return PersonalizeSettings.all();
    }

    @Override
    public List<SearchExtSpec<?>> getSearchExts() {
        List<SearchExtSpec<?>> specs = new ArrayList<>(ForeignExts.specs(settings));
        specs.add(
            new SearchExtSpec<>(
                PersonalizeExtBuilder.NAME,
                PersonalizeExtBuilder::new,
                PersonalizeExtBuilder::fromXContent
            )
        );
        return specs;
    }

    @Override
    public List<NamedWriteableRegistry.Entry> getNamedWriteables() {
        return List.of(
            new NamedWriteableRegistry.Entry(
                SearchExtBuilder.class,
                PersonalizeAnswer.NAME,
                PersonalizeAnswer::new
            )
        );
    }

    @Override
    public List<ActionHandler<? extends ActionRequest, ? extends ActionResponse>> getActions() {
        return List.of(new ActionHandler<>(StatsAction.INSTANCE, TransportStatsAction.class));
    }

    @Override
    public List<RestHandler> getRestHandlers(
        Settings nodeSettings,
        RestController controller,
        ClusterSettings clusterSettings,
        IndexScopedSettings indexSettings,
        SettingsFilter filter,
        IndexNameExpressionResolver resolver,
        Supplier<DiscoveryNodes> nodes
    ) {
        return List.of(new RestStatsAction());
    }

    @Override
    public List<ActionFilter> getActionFilters() {
        return List.of(new SearchFilter(services));
    }

    @Override
    public Map<String, Processor.Factory<SearchRequestProcessor>> getRequestProcessors(
        Parameters parameters
    ) {
        return Map.of(
            PersonalizeExtBuilder.NAME,
            new ProcessorFactory.ForRequests(() -> services)
        );
    }

    @Override
    public Map<String, Processor.Factory<SearchResponseProcessor>> getResponseProcessors(
        Parameters parameters
    ) {
        return Map.of(
            PersonalizeExtBuilder.NAME,
            new ProcessorFactory.ForResponses(() -> services)
        );
    }

    @Override
    public Map<String, SystemGeneratedFactory<SearchRequestProcessor>> getSystemGeneratedRequestProcessors(
        Parameters parameters
    ) {
        return Map.of(
            SystemGenerated.REQUEST_FACTORY,
            new SystemGenerated.RequestFactory(() -> services)
        );
    }

    @Override
    public Map<String, SystemGeneratedFactory<SearchResponseProcessor>> getSystemGeneratedResponseProcessors(
        Parameters parameters
    ) {
        return Map.of(
            SystemGenerated.RESPONSE_FACTORY,
            new SystemGenerated.ResponseFactory(() -> services)
        );
    }

    @Override
    public void close() {
        if (services != null) {
            services.sidecar().close();
        }
    }
}
